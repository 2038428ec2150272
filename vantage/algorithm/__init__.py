"""What an algorithm image installs: declare functions, read data, ask other organizations, answer.

>>> from vantage.algorithm import DataFrame, function
>>> @function
... def count(df: DataFrame) -> int:
...     return len(df)
"""

from vantage.algorithm.context import Context, Failure, SubtaskResult
from vantage.algorithm.database import Database
from vantage.algorithm.errors import AlgorithmError, TooFewRecordsError
from vantage.algorithm.functions import DataFrame, declaration_of, function

__all__ = [
    "AlgorithmError",
    "Context",
    "DataFrame",
    "Database",
    "Failure",
    "SubtaskResult",
    "TooFewRecordsError",
    "declaration_of",
    "function",
]
