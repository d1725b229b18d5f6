"""The page docs/questions.md, written from the table.

``python -m spatial_mllm_ros.query.questions_page docs/questions.md`` writes it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from spatial_mllm_ros.query.table import Family, Table, built_in_table

_HEAD = """<!-- Written by spatial_mllm_ros.query.questions_page from query/families.yaml. Do not edit. -->
# Questions that are measured

A question is answered by geometry when every word of it is understood and its words make one of the kinds below.
Any other question is free-form: it goes to the model, or gets `NO_MODEL` when none is loaded.

- `<p0>`, `<p1>` … are the request's points, `<box0>` … its boxes, `<t0>`, `<t1>` … its times.
  A placeholder that the request does not have is an error (`INVALID_REQUEST`).
- Without any placeholder the request's own points, boxes or times are meant, in order, when there are just as many as
  the question needs: "Which point is nearer?" with two points.
- Wording is free: word order, British or American spelling, contractions, capitals, punctuation and small typing errors
  do not matter. The examples are only examples.
- A placeholder may be named: "Is the red mug at `<p0>` nearer than the plate at `<p1>`?", "How tall is the cabinet in
  `<box0>`?". The name is not checked against the image, and what moves by itself (a person, say) is left to the model.
- Name a unit and the answer is worded in it ("…, in feet"): m, cm, mm, km, inches, feet, yards, degrees, radians,
  milliseconds, seconds, minutes, hours, square metres, square centimetres, square feet, percent. The fields `value` and
  `unit` stay in the unit of the table.
- Of a span of time either end may be left open: "since `<t0>`" ends now, "until `<t0>`" begins with the recording, and
  no time at all means the whole recording. Where an instant is asked for, no time means now.

"""

_TAIL = """
## Your own words

A YAML file of yours can teach the parser more words and whole wordings for these kinds of question:

```yaml
vocabulary:            # concept: more words or phrases that mean it (the concepts are those of families.yaml)
  CAMERA: [drone, gripper camera]
  FLOOR: [deck]
ordinary: [drones]     # words that are right as they are, and no slip of another word
families:
  - name: is_higher    # one of the names above
    wordings:          # whole questions, word for word; <p0> is the first point in the order of roles, <p1> the second
      - Does <p0> clear <p1>?
```

```python
from spatial_mllm_ros.query.parser import QuestionParser
from spatial_mllm_ros.query.table import load_table

parser = QuestionParser(load_table("my_words.yaml"))
parser.parse("How high is the drone above the deck?", points=0, boxes=0, times=0)
```

Roles: in a comparison or difference the first point is the subject ("Is `<p0>` higher than `<p1>`?"), of two times the
first is the start. A wording also fits with a unit at its end. A file that contradicts the table, or names a kind or
concept that does not exist, is a `ValueError` that says where. `QuestionParser.unknown_words(text)` tells which words
made a question free-form.
"""


def questions_page(table: Table | None = None) -> str:
    """The page as Markdown: how questions are read, every family with its examples, and how to add words."""
    families = (table or built_in_table()).families.values()
    return _HEAD + "\n".join(_section(family) for family in families) + _TAIL


def _section(family: Family) -> str:
    takes = [_count(family.slots[kind], noun) for kind, noun in _NOUNS.items() if family.slots[kind][1]]
    if family.together is not None:
        takes = ["a point or a box"]
    facts = [f"Answer: {family.answer_type.name}" + (f" in {family.unit}" if family.unit else "")]
    facts.append(f"names {' and '.join(takes)}" if takes else "names nothing")
    examples = "".join(f"- {_escaped(example)}\n" for example in family.examples)
    return f"## {family.name}\n\n{family.answers[0].upper()}{family.answers[1:]}. {'; '.join(facts)}.\n\n{examples}"


_NOUNS = {"P": "point", "BOX": "box", "T": "time"}


def _count(span: tuple[int, int], noun: str) -> str:
    least, most = span
    if (least, most) == (0, 1):
        return f"at most 1 {noun}"
    number = f"{least}" if least == most else f"{least} to {most}"
    return f"{number} {noun}{'' if (least, most) == (1, 1) else 'es' if noun == 'box' else 's'}"


def _escaped(text: str) -> str:
    return text.replace("<", "`<").replace(">", ">`")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(questions_page(), encoding="utf-8")
