from tablehouse.tasks.doubts import Doubts, Growth, Misplaced


def test_only_what_is_found_here_for_the_first_time_has_to_be_told() -> None:
    told: list[str] = []
    doubts = Doubts(lambda: told.append("told"))
    doubts.learn({"a-changelog": Misplaced(0, 5)})
    doubts.found("a-changelog", Misplaced(1, 6))
    assert told == []
    doubts.found("b-changelog", Misplaced(2, 7))
    doubts.found("b-changelog", Misplaced(2, 8))
    assert told == ["told"]
    assert doubts.misplaced == {"a-changelog": (0, 5), "b-changelog": (2, 7)}


def test_the_reason_names_the_record_and_what_to_do() -> None:
    doubts = Doubts(lambda: None)
    assert doubts.why("a-changelog", "a") is None
    doubts.learn({"a-changelog": Misplaced(3, 41)})
    why = doubts.why("a-changelog", "a")
    assert why is not None
    assert "offset 41 of a[3]" in why
    assert "Correct `partitioner`" in why
    assert doubts.why("b-changelog", "a") is None


def test_a_topic_that_has_grown_puts_each_of_its_tables_in_doubt_until_it_has_not() -> None:
    doubts = Doubts(lambda: None)
    doubts.grown({"a-changelog": Growth("a", 4, 6)})
    why = doubts.why("a-changelog", "a")
    assert why is not None
    assert "6 partitions" in why
    assert "built with 4" in why
    assert "a new version over this topic would not help" in why
    assert doubts.why("b-changelog", "b") is None
    doubts.grown({})
    assert doubts.why("a-changelog", "a") is None
