"""Made-up names and prompts, repeatable by seed. No word comes from anybody's data."""

from typing import Final

MAX_PROMPT_CHARACTERS: Final = 120


def usernames(seed: int, count: int) -> list[str]:
    """Return so many different user names."""
    from mimesis import Locale, Person

    person = Person(Locale.EN, seed=seed)
    return [f"{person.username(mask='l')}_{number:03d}" for number in range(1, count + 1)]


def prompts(seed: int, count: int) -> list[str]:
    """Return so many different prompts."""
    from mimesis import Locale, Text

    text = Text(Locale.EN, seed=seed)
    return [f"{text.sentence()[:MAX_PROMPT_CHARACTERS]} #{number}" for number in range(1, count + 1)]
