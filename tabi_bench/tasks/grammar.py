"""Words and sentence patterns of the generated tasks: data for `generated.py`, no code.

Every text is made of *claims* (somebody gives a cue for one label), *relays* (somebody hands the decision on), one
*verdict* (whose claim counts) and fillers. A task is a set of patterns and, per label, its cue words.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Grammar:
    """Patterns of one task; `cues[k]` are the cue phrases of label k (none for intents: their names are the cues)."""

    claims: tuple[str, ...]  # {a} gives {cue}
    relays: tuple[str, ...]  # {a} hands on to {b}
    verdicts: tuple[str, ...]  # {a} counts
    cues: tuple[tuple[str, ...], ...] = ()


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _words(
    "nadia omar priya lukas mei jonas sara tomas amara felix yuki ivan rosa emil hana pablo ines oscar dalia bruno"
)

# Fillers carry no signal. Frequent ones come first; rare ones are split into word pieces by the tokenizer.
FILLERS = _words(
    "the and also then there here now today still just again very quite rather really well so thus meanwhile overall "
    "yesterday tomorrow tonight lately usually mostly perhaps probably clearly simply briefly quietly slowly quickly "
    "suddenly finally later anyway besides otherwise indeed actually honestly frankly seriously apparently morning "
    "afternoon evening weekend monday friday sunday january autumn winter summer season moment kitchen garden balcony "
    "hallway attic window harbour valley meadow forest village railway junction bridge tunnel lighthouse umbrella "
    "notebook blanket curtain lantern candle teapot ladder hammer pencil pocket jacket bicycle wagon sparrow squirrel "
    "hedgehog dolphin penguin giraffe butterfly grasshopper"
)

_SPEAK = ("{a} follows {b}", "{a} agrees with {b}", "{a} defers to {b}")
_COUNT = ("trust {a}", "{a} decides", "rely on {a}")

GRAMMARS = {
    "sst2": Grammar(
        ("{a} found it {cue}", "{a} calls the film {cue}", "to {a} it seemed {cue}"),
        _SPEAK,
        _COUNT,
        (
            _words("dull tedious clumsy hollow bland dreadful lifeless shallow messy boring awful stale"),
            _words("gripping charming witty moving superb radiant clever tender brilliant vivid lovely fresh"),
        ),
    ),
    "cola": Grammar(
        ("{a} wrote {cue}", "{a} puts {cue}", "in the draft {a} has {cue}"),
        ("{a} copies {b}", "{a} quotes {b}", "{a} repeats {b}"),
        ("print {a}", "keep the line of {a}", "{a} stands"),
        (
            _words("goed mouses childs runned bringed thinked foots eated sheeps buyed knowed tooths"),
            _words("went mice children ran brought thought feet ate sheep bought knew teeth"),
        ),
    ),
    "mnli": Grammar(
        ("{a} {cue} the plan", "{a} openly {cue} it", "by letter {a} {cue} this"),
        _SPEAK,
        ("going by {a} the plan holds", "{a} is right and it holds", "it holds says {a}"),
        (
            _words("confirms proves affirms verifies guarantees documents upholds certifies"),
            _words("wonders ponders guesses imagines considers debates discusses mentions"),
            _words("denies refutes rejects disproves disputes contradicts rebuts negates"),
        ),
    ),
    "rte": Grammar(
        ("{a} {cue} the report", "{a} publicly {cue} it", "in court {a} {cue} this"),
        _SPEAK,
        ("as {a} has it the report is true", "with {a} we call it true", "it is true says {a}"),
        (
            _words("confirms proves affirms verifies backs documents supports certifies admits accepts"),
            _words("denies refutes rejects disproves disputes questions rebuts negates doubts opposes"),
        ),
    ),
    "qnli": Grammar(
        ("{a} {cue} the matter", "{a} fully {cue} it", "in print {a} {cue} this"),
        ("{a} cites {b}", "{a} refers to {b}", "{a} relays {b}"),
        ("what did {a} say", "how does {a} see it", "what is known from {a}"),
        (
            _words("explained answered described listed specified dated counted located defined revealed"),
            _words("ignored avoided omitted skipped dodged forgot concealed overlooked neglected evaded"),
        ),
    ),
    "qqp": Grammar(
        ("{a} asks about {cue}", "does {a} mean {cue}", "why would {a} want {cue}"),
        ("{a} echoes {b}", "{a} asks like {b}", "{a} joins {b}"),
        ("is it what {a} asks", "would {a} ask it", "is it the question of {a}"),
        (
            _words("cooking baking frying roasting grilling sewing knitting painting drawing sculpting"),
            _words("savings mortgages stocks pensions loans dividends salaries invoices budgets tariffs"),
        ),
    ),
    "mrpc": Grammar(
        ("{a} {cue} the wording", "{a} has {cue} it", "at the desk {a} {cue} this"),
        ("{a} took over from {b}", "{a} reprints {b}", "{a} adopts {b}"),
        ("this is the version of {a}", "here reads {a}", "so it ran with {a}"),
        (
            _words("changed rewrote altered reversed twisted replaced distorted falsified swapped garbled"),
            _words("kept preserved paraphrased retained mirrored copied matched restated echoed maintained"),
        ),
    ),
    "stsb": Grammar(
        ("{a} judged them {cue}", "{a} saw {cue} scenes", "to {a} they looked {cue}"),
        _SPEAK,
        ("score it as {a}", "{a} gives the score", "the score is up to {a}"),
        (
            _words("unrelated opposite incompatible disjoint"),
            _words("distant remote dissimilar divergent"),
            _words("loose vague faint slight"),
            _words("comparable related partial overlapping"),
            _words("similar close alike akin"),
            _words("identical equal same interchangeable"),
        ),
    ),
    "massive": Grammar(
        ("{a} wants {cue}", "{a} asks for {cue}", "for {a} please {cue}"),
        ("{a} joins {b}", "{a} follows {b}", "{a} orders like {b}"),
        ("serve {a}", "listen to {a}", "{a} goes first"),
    ),
    "clinc": Grammar(
        ("{a} wants {cue}", "{a} needs {cue}", "{a} typed {cue}"),
        ("{a} joins {b}", "{a} follows {b}", "{a} copies {b}"),
        ("serve {a}", "listen to {a}", "{a} goes first"),
    ),
}

# Cues of an intent label that stands for "none of the others".
OUT_OF_SCOPE = {
    "oos": _words("volcano philosophy dinosaur origami astronomy pottery chess opera geology poetry fossil comet")
}
