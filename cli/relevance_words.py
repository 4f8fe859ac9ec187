"""How relevance reads: a table by label, then each question that was not answered in full."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cli.terminal import out, plain, plain_table

if TYPE_CHECKING:
    from bench.relevance import Score, Verdict


def show_relevance(scores: "Sequence[Score]", verdicts: "Sequence[Verdict]") -> None:
    """Say it to people."""
    table = plain_table("LABEL", "QUESTIONS", "RECALL@10", "MRR")
    for score in scores:
        table.add_row(score.label, str(score.questions), f"{score.recall:.3f}", f"{score.mrr:.3f}")
    out.print(table)
    for one in _missed(verdicts):
        missing = [name for name in one.question.expected if name not in one.found]
        out.print()
        out.print(plain(f"{one.question.label}: {one.question.query} {dict(one.question.parameters) or ''}".rstrip()))
        if one.corrected_to is not None:
            out.print(plain(f"  corrected to: {one.corrected_to}"))
        out.print(plain(f"  missing: {', '.join(missing) or 'nothing, but the first hit is another'}"))
        out.print(plain(f"  found:   {', '.join(one.found[:3]) or 'nothing'}"))


def relevance_json(scores: "Sequence[Score]", verdicts: "Sequence[Verdict]") -> str:
    """Say it to programs, in one line: `<label>_recall_at_10` and `<label>_mrr`, and the questions that failed."""
    figures: dict[str, Any] = {}
    for score in scores:
        figures |= {f"{score.label}_recall_at_10": score.recall, f"{score.label}_mrr": score.mrr}
    failed = [
        {
            "label": one.question.label,
            "query": one.question.query,
            "parameters": dict(one.question.parameters),
            "recall": one.recall,
            "reciprocal_rank": one.reciprocal_rank,
            "expected": list(one.question.expected),
            "found": list(one.found),
            "corrected_to": one.corrected_to,
        }
        for one in _missed(verdicts)
    ]
    questions = {score.label: score.questions for score in scores}
    return json.dumps({**figures, "questions": questions, "failed": failed}, ensure_ascii=False)


def _missed(verdicts: "Sequence[Verdict]") -> "list[Verdict]":
    return [one for one in verdicts if one.recall < 1 or one.reciprocal_rank < 1]
