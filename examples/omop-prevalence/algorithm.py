"""How common a condition is in OMOP databases of several organizations: each counts for itself, in its own database."""

from __future__ import annotations

from typing import Any

from vantage.algorithm import Context, Database, TooFewRecordsError, function


@function
def partial_prevalence(db: Database, concept_id: int, min_count: int = 10) -> dict[str, int]:
    """Persons, and how many of them have a condition.

    Args:
        db: a database with the tables of the OMOP Common Data Model, handed out as a connection.
        concept_id: standard concept of the condition, e.g. 4311499 (primary malignant neoplasm of respiratory tract).
        min_count: fewer persons or cases than this are not told.
    """
    import psycopg
    from psycopg import sql

    query = sql.SQL(
        "SELECT (SELECT count(*) FROM {0}.person), (SELECT count(DISTINCT person_id) FROM {0}.condition_occurrence"
        " WHERE condition_concept_id = %s)"
    ).format(sql.Identifier(db.cdm_schema))
    with psycopg.connect(db.url) as connection:
        row = connection.execute(query, [concept_id]).fetchone()
    persons, cases = row if row is not None else (0, 0)
    if persons < min_count or 0 < cases < min_count:
        raise TooFewRecordsError(min_count)
    return {"persons": persons, "cases": cases}


@function
def prevalence(ctx: Context, concept_id: int, dataset: str, min_count: int = 10) -> dict[str, Any]:
    """How common a condition is over all organizations; those that cannot tell are named.

    Args:
        concept_id: standard concept of the condition.
        dataset: name of the database at the nodes.
        min_count: fewer persons or cases than this no organization tells.
    """
    arguments = {"concept_id": concept_id, "min_count": min_count}
    results = ctx.subtask(partial_prevalence, arguments, datasets={"db": dataset})
    known = [each.value for each in results if each.failure is None]
    persons, cases = (sum(each[key] for each in known) for key in ("persons", "cases"))
    return {
        "persons": persons,
        "cases": cases,
        "prevalence": cases / persons if persons else None,
        "without_answer": [each.organization for each in results if each.failure is not None],
    }
