"""Files mapped into memory without staying open, because a process may have far more maps than open files."""

import mmap
import sys

if sys.platform == "win32":  # what a map keeps there doesn't count as an open file

    def _map(descriptor: int, num_bytes: int) -> mmap.mmap:
        return mmap.mmap(descriptor, num_bytes, access=mmap.ACCESS_READ)

elif sys.version_info >= (3, 13):

    def _map(descriptor: int, num_bytes: int) -> mmap.mmap:
        return mmap.mmap(descriptor, num_bytes, access=mmap.ACCESS_READ, trackfd=False)

else:  # mmap would keep a duplicate of the descriptor
    import ctypes
    import os
    import weakref

    _libc = ctypes.CDLL(None, use_errno=True)
    _libc.mmap.restype = ctypes.c_void_p
    _libc.mmap.argtypes = (
        *(ctypes.c_void_p, ctypes.c_size_t),  # address, length
        *(ctypes.c_int, ctypes.c_int),  # protection, flags
        *(ctypes.c_int, ctypes.c_long),  # descriptor, offset
    )
    _libc.munmap.argtypes = ctypes.c_void_p, ctypes.c_size_t
    _FAILED = ctypes.c_void_p(-1).value

    def _map(descriptor: int, num_bytes: int) -> ctypes.Array[ctypes.c_ubyte]:
        address = _libc.mmap(None, num_bytes, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
        if address == _FAILED:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        memory = (ctypes.c_ubyte * num_bytes).from_address(address)
        # Not at exit, when other threads may still be reading.
        weakref.finalize(memory, _libc.munmap, address, num_bytes).atexit = False
        return memory


def map_file(descriptor: int, num_bytes: int) -> memoryview:
    """Map an open file of `num_bytes` into read-only memory, which is unmapped when nothing uses it any more.

    Raises OSError.
    """
    return memoryview(_map(descriptor, num_bytes)).toreadonly()
