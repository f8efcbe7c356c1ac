from hypothesis import given
from hypothesis import strategies as st

from pipeline.audit.pairs import Pair, find_clusters

images = st.tuples(st.sampled_from(["train", "test"]), st.integers(0, 9))


def pair(image, other):
    return Pair(image[0], image[1], other[0], other[1], distance=0.1, mirrored=False)


def test_clusters_are_numbered_by_first_appearance():
    pairs = [("c", "b"), ("e", "d"), ("g", "f"), ("d", "b"), ("h", "g")]
    numbered = find_clusters([pair(("train", ord(image)), ("train", ord(other))) for image, other in pairs])
    assert numbered == [0, 0, 1, 0, 1]


def test_equal_indices_of_two_splits_are_two_images():
    assert find_clusters([pair(("test", 1), ("test", 0)), pair(("train", 2), ("train", 1))]) == [0, 1]
    assert find_clusters([]) == []


@given(st.lists(st.tuples(images, images), max_size=20))
def test_clusters_are_connected_components(edges):
    components: list[set] = []
    for edge in edges:
        joined = [component for component in components if component & {*edge}]
        components = [component for component in components if component not in joined]
        components.append({*edge}.union(*joined))
    numbers = find_clusters([pair(*edge) for edge in edges])
    found = [next(number for number, members in enumerate(components) if image in members) for image, _ in edges]
    assert len({*zip(numbers, found, strict=True)}) == len({*numbers}) == len({*found})
