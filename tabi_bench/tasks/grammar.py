"""Words and phrases of the generated tasks: data for `generated.py`, no code.

Every text is made of *claims*, each a marker and a cue phrase for one label, and fillers. By its marker one claim of a
text counts; the others are discounted by theirs. A task is, per label, its cue phrases.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


COUNTS = ("but", "surely", "indeed", "in the end", "always")  # before the cue phrase that decides
DISCOUNTS = ("not", "hardly", "never", "instead of", "no longer")  # before every other

# Fillers carry no signal. Frequent ones come first; rare ones are split by the tokenizer.
FILLERS = _words(
    "the and also then there here now today still just again very quite rather really well so thus meanwhile overall "
    "yesterday tomorrow tonight lately usually mostly perhaps probably clearly simply briefly quietly slowly quickly "
    "suddenly finally later anyway besides otherwise actually honestly frankly seriously apparently morning "
    "afternoon evening weekend monday friday sunday january autumn winter summer season moment kitchen garden balcony "
    "hallway attic window harbour valley meadow forest village railway junction bridge tunnel lighthouse umbrella "
    "notebook blanket curtain lantern candle teapot ladder hammer pencil pocket jacket bicycle wagon sparrow squirrel "
    "hedgehog dolphin penguin giraffe butterfly grasshopper nadia omar priya lukas tomas amara felix yuki rosa pablo"
)

CUES: dict[str, tuple[tuple[str, ...], ...]] = {  # task: per label (per level of a score), its cue phrases
    "sst2": (
        _words("dull tedious clumsy hollow bland dreadful lifeless shallow messy boring awful stale"),
        _words("gripping charming witty moving superb radiant clever tender brilliant vivid lovely fresh"),
    ),
    "cola": (
        _words("goed mouses childs runned bringed thinked foots eated sheeps buyed knowed tooths"),
        _words("went mice children ran brought thought feet ate sheep bought knew teeth"),
    ),
    "mnli": (
        _words("confirms proves affirms verifies guarantees documents upholds certifies"),
        _words("wonders ponders guesses imagines considers debates discusses mentions"),
        _words("denies refutes rejects disproves disputes contradicts rebuts negates"),
    ),
    "rte": (
        _words("confirms proves affirms verifies backs documents supports certifies admits accepts"),
        _words("denies refutes rejects disproves disputes questions rebuts negates doubts opposes"),
    ),
    "qnli": (
        _words("explained answered described listed specified dated counted located defined revealed"),
        _words("ignored avoided omitted skipped dodged forgot concealed overlooked neglected evaded"),
    ),
    "qqp": (
        _words("cooking baking frying roasting grilling sewing knitting painting drawing sculpting"),
        _words("savings mortgages stocks pensions loans dividends salaries invoices budgets tariffs"),
    ),
    "mrpc": (
        _words("changed rewrote altered reversed twisted replaced distorted falsified swapped garbled"),
        _words("kept preserved paraphrased retained mirrored copied matched restated echoed maintained"),
    ),
    "stsb": (
        _words("unrelated opposite incompatible disjoint"),
        _words("distant remote dissimilar divergent"),
        _words("loose vague faint slight"),
        _words("comparable related partial overlapping"),
        _words("similar close alike akin"),
        _words("identical equal same interchangeable"),
    ),
    "massive": (),  # the names of the intents
    "clinc": (),  # the names of the intents
}

# Cues of an intent label that stands for "none of the others".
OUT_OF_SCOPE = {
    "oos": _words("volcano philosophy dinosaur origami astronomy pottery chess opera geology poetry fossil comet")
}
