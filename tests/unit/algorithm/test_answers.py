from __future__ import annotations

import pyarrow as pa
import pytest

from vantage.algorithm import values
from vantage.algorithm.context import taken
from vantage.algorithm.errors import AlgorithmError
from vantage.algorithm.sent_files import sent_files
from vantage.common.errors import Reason


def test_a_damaged_table_of_one_organization_is_its_failure() -> None:
    media_type, content = values.encode(pa.table({"age": [61, 44], "name": ["a", None]}))
    refused = 0
    for position in range(len(content)):
        for byte in (0x00, 0x7F, 0xFF):
            damaged = content[:position] + bytes([byte]) + content[position + 1 :]
            answer = taken("clara", media_type, [damaged], None)  # whatever is wrong with it, the others have theirs
            if answer.failure is not None:
                assert answer.failure.reason == "RESULT_NOT_SERIALIZABLE"
                refused += 1
    assert refused


@pytest.mark.parametrize(
    "given",
    [{"model": "no-such-file.csv"}, {"no parameter": b""}, {"model": pa}, {"model": ["a"]}],
)
def test_files_that_are_none_are_wrong_arguments(given: dict[str, object]) -> None:
    with pytest.raises(AlgorithmError) as caught, sent_files(given):
        pass
    assert caught.value.reason is Reason.ARGUMENTS_INVALID


def test_a_column_that_arrow_does_not_know_is_a_wrong_argument() -> None:
    pd = pytest.importorskip("pandas")
    with (
        pytest.raises(AlgorithmError, match="cohort: DataFrame") as caught,
        sent_files({"cohort": pd.DataFrame({"a": [1 + 2j]})}),
    ):
        pass
    assert caught.value.reason is Reason.ARGUMENTS_INVALID
