"""Words of both languages in the forms that people write, as frequent as words are: by Zipf's law.

The most frequent are real; behind them come made-up ones that are inflected like real ones, since an archive has more
names, brands and misspellings than a list of words could hold. Each form knows its lexeme, so that whoever writes text
with them can count by how many files each lexeme is to be found, without asking what is measured.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, count, product
from typing import Final

from consumer_query.analysis import lexeme, lower_words

LEMMAS: Final = 150_000
"""Enough that a table of 3,000,000 files has words that only a few of them hold."""
_RICH: Final = 20_000
"""Lemmas that come in all their forms; the rest in two."""

_ENDINGS: Final = {
    "masculine": " а у ом е ы ов ам ами ах",
    "soft": " а у ом е и ов ам ами ах",
    "feminine": "а ы е у ой ам ами ах",
    "softer": "а и е у ой ам ами ах",
    "ия": "ия ии ию ией ий иям иями иях",
    "ие": "ие ия ию ием ии ий иям иями иях",
    "ость": "ь и ью ей ям ями ях",
    "adjective": "ый ого ому ым ом ая ой ую ое ые ых ыми",
    "softly": "ий ого ому им ом ая ой ую ое ие их ими",
    "english": " s",
    "verb": " s ed ing",
}
_RUSSIAN: Final = {
    "masculine": "договор акт отчет счет проект план протокол заказ документ реестр регламент контракт бюджет баланс "
    "образец эскиз чертеж каталог архив отдел офис филиал клиент поставщик аванс налог тариф лимит процент кредит "
    "депозит депонент паспорт диплом сертификат стандарт формуляр журнал раздел пункт абзац шаблон макет логотип "
    "баннер плакат буклет релиз тест результат анализ аудит ремонт монтаж объект материал инструмент прибор "
    "датчик склад пакет",
    "soft": "приказ график список подрядчик заказчик поток чек срок скетч блок грузовик ярлык выпуск допуск отпуск",
    "feminine": "смет схем форм таблиц программ реклам систем проблем тем команд групп фирм контор "
    "работ услуг аренд оплат доплат зарплат норм сумм плат квот доз ошибк замен отмен охран защит "
    "закупк погод природ картин машин страниц единиц границ бригад оград наград карт",
    "softer": "справк выписк поставк проверк сверк заявк анкет папк записк отгрузк доставк упаковк "
    "оценк отметк скидк наценк ставк покупк посылк подписк рассылк поездк стройк книг бумаг дач задач "
    "передач выдач сдач удач плитк пленк краск отделк",
    "ия": "инструкц организац комисс компан декларац спецификац документац презентац иллюстрац регистрац гарант "
    "лиценз корпорац акц операц калькуляц вариац верс конференц рецептур категор территор истор фотограф",
    "ие": "соглашен приложен заключен решен предложен распоряжен постановлен заявлен изменен дополнен описан задан "
    "требован согласован уведомлен извещен сообщен помещен здан строен оборудован обучен собран совещан "
    "назначен увольнен страхован финансирован",
    "ость": "ведомост отчетност задолженност собственност доверенност недвижимост стоимост мощност плотност",
    "adjective": "финансов кадров складск квартальн ежемесячн договорн платежн налогов товарн транспортн "
    "производственн коммерческ нов стар основн дополнительн временн постоянн срочн важн архивн сводн итогов "
    "предварительн окончательн утвержденн подписанн исправленн отсканированн внутренн исходн черн бел красн",
    "softly": "бухгалтерск юридическ техническ экономическ российск московск городск сельск морск рабоч общ "
    "предыдущ следующ действующ",
}
_ENGLISH: Final = {
    "english": "report contract invoice project plan budget photo image drawing manual presentation agreement "
    "statement order receipt logo banner brochure poster catalog draft template appendix schedule protocol minute "
    "meeting summary license certificate passport letter memo form table chart diagram scheme model "
    "sample proposal quote offer estimate ledger payroll salary account balance tax audit client customer "
    "supplier vendor partner employee manager director team department branch office warehouse product item part "
    "price cost total amount payment transfer loan credit deposit insurance claim case court lawyer notary property "
    "building house floor room bridge road map region city country forest river mountain sunset portrait wedding "
    "birthday holiday conference lecture course student teacher school library archive database server network "
    "backup export dump log script release version bug feature spec requirement test result dataset",
    "verb": "sign scan review correct cancel open finish start check confirm deliver pay "
    "print copy edit record research answer request reject extend renew convert install repair clean paint",
}
_SYLLABLES: Final = {
    "masculine": (
        "бар вел гор дан жур зам кор лан мир нор пар рос сам тор фар хол ба ве ги до за ко ла ми но пе ру са ту хо це",
        "бар вел гор дан жур зам кор лан мир нор пар рос сам тор фар хол чар бел вал ген дор кам лив мон нел рам тил",
    ),
    "english": (
        "bar ven cor dan fel gor hal jan kel lor mar nel por ros ba ve ko da fi go ha la mi no pe ru sa tu vi wo ze",
        "bar ven cor dan fel gor hal jan kel lor mar nel por rol sam tor vin wal zen bel con dex fin gam hol lim mon",
    ),
}
"""Of made-up stems: those that can stand anywhere, and those at the end, where endings can follow."""


@dataclass(frozen=True)
class Vocabulary:
    """Forms, and how frequent they are."""

    forms: Sequence[str]
    """Lower case, without ё; those of the most frequent lemma first. No stop words."""
    lexemes: Sequence[str]
    """Of each form, in the index."""
    weights: Sequence[float]
    """Cumulative: for `random.choices`."""

    def picks(self, chance: random.Random, how_many: int) -> list[int]:
        """Places of so many forms."""
        return chance.choices(range(len(self.forms)), cum_weights=self.weights, k=how_many)


@cache
def vocabulary(lemmas: int = LEMMAS) -> Vocabulary:
    """The same words in each run and each process."""
    forms: list[str] = []
    shares: list[float] = []
    known: set[str] = set()
    for rank, (stem, endings) in zip(range(1, lemmas + 1), _lemmas(), strict=False):
        fresh = [form for ending in endings if (form := stem + ending) not in known]
        some = fresh if rank <= _RICH else fresh[:2]
        known.update(some)
        forms += some
        shares += [1 / rank / len(some)] * len(some)
    return Vocabulary(forms, [lexeme(form) for form in forms], list(accumulate(shares)))


def lexeme_of(word: str) -> str:
    """The lexeme of one word as a user types it."""
    [lower] = lower_words(word)
    return lexeme(lower)


def _lemmas() -> Iterator[tuple[str, list[str]]]:
    """Stems with their endings, two of three Russian, the most frequent first, without an end."""
    chance = random.Random(1)  # noqa: S311 - the same words in each run
    russian, english = (_real(known, chance) for known in (_RUSSIAN, _ENGLISH))
    made = {kind: _made(syllables, chance) for kind, syllables in _SYLLABLES.items()}
    for number in count():
        listed, kind = (english, "english") if number % 3 == 2 else (russian, "masculine")
        yield listed.pop() if listed else (next(made[kind]), _endings(kind))


def _real(known: dict[str, str], chance: random.Random) -> list[tuple[str, list[str]]]:
    lemmas = [(stem, _endings(kind)) for kind, stems in known.items() for stem in dict.fromkeys(stems.split())]
    chance.shuffle(lemmas)
    return lemmas


def _endings(kind: str) -> list[str]:
    return _ENDINGS[kind].split(" ")


def _made(syllables: tuple[str, str], chance: random.Random) -> Iterator[str]:
    first, last = (known.split() for known in syllables)
    for length in count(1):
        words = ["".join(some) for some in product(*[first] * length, last)]
        chance.shuffle(words)
        yield from words
