from hypothesis import given
from hypothesis import strategies as st

from pipeline.audit.pairs import Pair, find_clusters, make_pairs
from tests.helpers.audits import name_pairs, tabulate

images = st.tuples(st.sampled_from(["train", "test"]), st.integers(0, 9))


def pair(image, other):
    return Pair(image[0], image[1], other[0], other[1], distance=0.1, mirrored=False)


def clusters_of(pairs):
    return find_clusters(tabulate(pairs)).tolist()


def test_clusters_are_numbered_by_first_appearance():
    pairs = [("c", "b"), ("e", "d"), ("g", "f"), ("d", "b"), ("h", "g")]
    numbered = clusters_of([pair(("train", ord(image)), ("train", ord(other))) for image, other in pairs])
    assert numbered == [0, 0, 1, 0, 1]


def test_equal_indices_of_two_splits_are_two_images():
    assert clusters_of([pair(("test", 1), ("test", 0)), pair(("train", 2), ("train", 1))]) == [0, 1]
    assert clusters_of([]) == []


@given(st.lists(st.tuples(images, images), max_size=20))
def test_clusters_are_connected_components(edges):
    components: list[set] = []
    for edge in edges:
        joined = [component for component in components if component & {*edge}]
        components = [component for component in components if component not in joined]
        components.append({*edge}.union(*joined))
    numbers = clusters_of([pair(*edge) for edge in edges])
    found = [next(number for number, members in enumerate(components) if image in members) for image, _ in edges]
    assert len({*zip(numbers, found, strict=True)}) == len({*numbers}) == len({*found})


def test_columns_become_rows_of_named_pairs():
    made = make_pairs(split=2, index=[4, 7], other_split=0, other_index=[1, 300], distance=[0.25, 0], mirrored=False)
    assert made.tobytes() == tabulate(name_pairs(made)).tobytes()
    assert name_pairs(made) == [
        Pair("test", 4, "train", 1, 0.25, mirrored=False),
        Pair("test", 7, "train", 300, 0.0, mirrored=False),
    ]
