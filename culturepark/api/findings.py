"""What `check` finds beyond the format of each card: unknown names, duplicates, generalisations."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from functools import partial

from jinja2 import meta, nodes

from culturepark import settings, surveys
from culturepark.context import Guest
from culturepark.curation import embedders, filters
from culturepark.errors import CardError, NotFound, ParkError, nearest
from culturepark.llm import load as load_model
from culturepark.prompts import parse
from culturepark.providers import PROVIDERS
from culturepark.records import Culture, Norm, Persona, Question, Record, Role, Turn
from culturepark.sandbox import PROPERTIES, SANDBOX
from culturepark.settings import Settings
from culturepark.surveys.names import NAMES
from culturepark.workspace import FOLDERS, SETTINGS, Workspace

PATTERNS = {
    "agents": "<role>.toml",
    "personas": "<culture>/<name>.toml",
    "scenarios": "<name>.toml",
}
CARDLIKE = {".toml", ".tml", ".toml~", ".yaml", ".yml", ".json"}
# What each role's prompts may use. Other roles are those of benchmarks of one's own.
_SEAT = (
    "me culture norms others question answer view shares survey setting style mode seat turns"
    " dialogue language"
)
_REFINERY = "question culture answer view"
_RESPONDENT = "me culture country question numbered view options codes labels"
FACTS = {
    role: frozenset(names.split())
    for role, names in {
        "main_contact": _SEAT,
        "delegate": _SEAT,
        "moderator": f"{_SEAT} other history n cue",
        "extractor": f"{_REFINERY} turns speakers",
        "verifier": f"{_REFINERY} opinion",
        "rewriter": f"{_REFINERY} opinion reason",
        "annotator": "task text labels culture",
        "respondent": _RESPONDENT,
        "learner": "task me home culture talk question lesson view",
        "teacher": "culture asked talk question answer",
    }.items()
}
KINDS: dict[str, type[Record]] = {
    "me": Persona,
    "culture": Culture,
    "home": Culture,
    "question": Question,
    "other": Guest,
}
ELEMENTS: dict[str, type[Record]] = {"others": Guest, "norms": Norm, "history": Turn}
PROMPTED = ("extractor", "verifier", "rewriter")


def list_findings(workspace: Workspace) -> list[str]:
    """Return every mistake that the format of the cards allows, with file, key and nearest name."""
    checks: tuple[Callable[[Workspace], Iterator[str]], ...] = (
        _check_files,
        _check_settings,
        _check_answers,
        _check_topics,
        _check_countries,
        _check_templates,
        _check_questions,
        _check_names,
        _check_empty_cultures,
        _check_generalising,
    )
    return [problem for check in checks for problem in check(workspace)]


# ------------------------------------------------------------------- files


def _check_files(workspace: Workspace) -> Iterator[str]:
    """Yield files that look like cards but are not read, because of their place or name."""
    for folder in FOLDERS:
        depth = 2 if folder == "personas" else 1
        for path in sorted((workspace.root / folder).rglob("*")):
            place = path.relative_to(workspace.root / folder)
            card = path.suffix == ".toml" and len(place.parts) == depth
            if path.is_file() and path.suffix.lower() in CARDLIKE and not card:
                yield (
                    f"{folder}/{place.as_posix()}: no card is read here; it would be"
                    f" {folder}/{PATTERNS[folder]}"
                )


def _check_settings(workspace: Workspace) -> Iterator[str]:
    """Yield names in culturepark.toml that the workspace does not have."""
    try:
        data = settings.read_own(workspace.root)
    except CardError as error:
        yield from (problem.replace(f"{workspace.root}/", "", 1) for problem in error.problems)
        return
    options = Settings.model_validate({k: v for k, v in data.items() if k != "keys"})
    references: tuple[tuple[str, Iterable[str], Iterable[str]], ...] = (
        ("scenario", [options.scenario] if "scenario" in data else [], workspace.scenarios),
        ("contact", [options.contact] if "contact" in data else [], workspace.cultures),
        ("cultures", options.cultures, workspace.cultures),
        *(
            (key, [name for name in names if ("/" in name) == (known is workspace.personas)], known)
            for key, names in (("seats", options.seats), ("languages", options.languages))
            for known in (workspace.cultures, workspace.personas)
        ),
        (
            "personas",
            options.personas,
            [*workspace.personas, *(p.name for p in workspace.personas.values())],
        ),
        (
            "questions",
            options.questions,
            [q.id for s in workspace.scenarios.values() for q in s.questions],
        ),
    )
    for key, names, known in references:
        there = sorted(set(known))
        yield from (
            f"{SETTINGS}: {key}: no {name!r} here. {nearest(name, there)}"
            for name in names
            if name not in there
        )
    yield from (f"{SETTINGS}: {line}" for line in _check_parts(options))
    yield from (f"{SETTINGS}: {line}" for line in _check_keys(options, data.get("keys", {})))


def _check_parts(options: Settings) -> Iterator[str]:
    """Yield what of filters, embedder, survey, faults and models cannot be loaded.

    No model is called and no key is needed.
    """
    loads: list[tuple[str, Callable[[], object]]] = [
        *(("refine.filters", partial(filters.load, name)) for name in options.refine.filters),
        ("refine.embedder", partial(embedders.load, options.refine.embedder)),
        ("survey", partial(surveys.load_survey, options.survey)),
    ]
    if options.model == "embedded":
        loads.append(("faults", partial(load_model, "embedded", faults=options.faults)))
    models = [
        ("model", options.model),
        *((f"models.{role}", name) for role, name in options.models.items()),
        *((f"seats.{seat}", name) for seat, name in options.seats.items()),
    ]
    for key, name in models:
        faults = options.faults if name == options.model != "embedded" else {}
        loads.append((key, partial(load_model, name, options.endpoint(name), faults=faults)))
    for key, load in loads:
        try:
            load()
        except ParkError as error:
            yield f"{key}: {error}"


def _check_keys(options: Settings, keys: Iterable[str]) -> Iterator[str]:
    """Yield keys whose name resembles a provider's but is neither one nor in use."""
    in_use = {
        name.partition("/")[0]
        for name in (options.model, *options.models.values(), *options.seats.values())
    }
    for provider in keys:
        if provider not in {*PROVIDERS, *in_use} and get_close_matches(
            provider, PROVIDERS, 1, 0.75
        ):
            yield f"keys: no provider {provider!r}. {nearest(provider, PROVIDERS)}"


# ------------------------------------------------------------------- names


def _check_answers(workspace: Workspace) -> Iterator[str]:
    folders = {p.name for p in (workspace.root / "personas").glob("*/")}
    for scenario in workspace.scenarios.values():
        for question in scenario.questions:
            for culture in question.answers:
                if culture not in workspace.cultures and culture not in folders:
                    yield (
                        f"scenarios/{scenario.name}.toml: question {question.id}:"
                        f" answers.{culture}: no such culture in personas/."
                        f" {nearest(culture, sorted(workspace.cultures))}"
                    )


def _check_topics(workspace: Workspace) -> Iterator[str]:
    """Yield topics of norms that no question has, so that the norm is never brought up."""
    topics = sorted({q.topic for s in workspace.scenarios.values() for q in s.questions})
    for culture in workspace.cultures.values() if topics else ():
        for i, norm in enumerate(culture.norms):
            for topic in norm.topics:
                if topic not in topics:
                    yield (
                        f"personas/{culture.name}/culture.toml: norm.{i}.topics: no question has"
                        f" the topic {topic!r}. {nearest(topic, topics)}"
                    )


def _check_countries(workspace: Workspace) -> Iterator[str]:
    """Yield unknown codes of surveyed countries and of Hofstede's table."""
    codes = sorted({*NAMES, *surveys.load_shipped().countries()})
    for culture in workspace.cultures.values():
        where = f"personas/{culture.name}/culture.toml"
        for code in sorted({code for code in culture.survey if culture.survey.count(code) > 1}):
            yield f"{where}: survey: {code!r} stands there twice"
        for code in culture.survey:
            if code not in codes and not _may_be_own_country(workspace, code):
                yield (
                    f"{where}: survey: {code!r} is no ISO 3166 code of three letters in the survey."
                    f" {_suggest_country(code, codes)}"
                )
        try:
            if culture.hofstede is not None:
                surveys.hofstede(culture.hofstede)
        except NotFound as error:
            yield f"{where}: hofstede: {error}"


def _may_be_own_country(workspace: Workspace, code: str) -> bool:
    """Return whether a code may belong to the survey in the workspace's settings, which only a run
    reads.
    """
    try:
        own = settings.read_own(workspace.root).get("survey")
    except CardError:
        return False
    return bool(own) and re.fullmatch("[A-Z]{3}", code) is not None


def _suggest_country(code: str, codes: list[str]) -> str:
    """Return the nearest code: by the country's name, by its first letters, else by likeness."""
    wanted = code.casefold()
    same = [c for c in codes if NAMES.get(c, "").casefold() == wanted or c.casefold() == wanted]
    begins = [
        c
        for c in codes
        if len(code) == 2
        and NAMES.get(c, "").casefold().startswith(wanted[0])
        and c[0] == code[0].upper()
        and code[1].upper() in c[1:]
    ]
    if best := (same or begins)[:1]:
        return f"Did you mean {best[0]!r} ({NAMES.get(best[0], best[0])})?"
    return nearest(code, codes)


def _check_questions(workspace: Workspace) -> Iterator[str]:
    """Yield question ids and option labels that stand twice: views name questions by id alone."""
    places: dict[str, list[str]] = defaultdict(list)
    for scenario in workspace.scenarios.values():
        for question in scenario.questions:
            places[question.id].append(f"scenarios/{scenario.name}.toml")
            labels = [o.label for o in question.options if o.label]
            for twin in sorted({label for label in labels if labels.count(label) > 1}):
                yield (
                    f"scenarios/{scenario.name}.toml: question {question.id}: two options are"
                    f" called {twin!r}"
                )
    for name, files in places.items():
        if len(files) > 1:
            yield (
                f"{files[1]}: question id {name!r} is also in {files[0]}; views could not tell them"
                " apart"
            )


def _check_names(workspace: Workspace) -> Iterator[str]:
    """Yield given names and norm texts that stand twice."""
    names: dict[str, str] = {}
    for persona in workspace.personas.values():
        other = names.setdefault(persona.given_name.casefold(), persona.id)
        if other != persona.id:
            yield (
                f"personas/{persona.id}.toml: given_name: {persona.given_name!r} is also that of"
                f" {other}; at one table nobody could tell them apart"
            )
    for culture in workspace.cultures.values():
        texts = [norm.text for norm in culture.norms]
        for i, text in enumerate(texts):
            if text in texts[:i]:
                yield (
                    f"personas/{culture.name}/culture.toml: norm.{i}.text: the same as"
                    f" norm.{texts.index(text)}.text"
                )


def _check_empty_cultures(workspace: Workspace) -> Iterator[str]:
    for folder in sorted(p for p in (workspace.root / "personas").iterdir() if p.is_dir()):
        if not folder.name.startswith((".", "_")) and not any(folder.rglob("*.toml")):
            yield (
                f"personas/{folder.name}/: no card in it; a culture needs"
                f" personas/{folder.name}/culture.toml"
            )
    for name in workspace.cultures:
        if all(
            path.name == "culture.toml"
            for path in (workspace.root / "personas" / name).glob("*.toml")
        ):
            yield (
                f"personas/{name}/: a culture without people; write a card"
                f" personas/{name}/<name>.toml"
            )


# --------------------------------------------------------------- templates


def _check_templates(workspace: Workspace) -> Iterator[str]:
    """Yield unknown names and fields in templates, also in branches that a trial does not enter."""
    for role in workspace.roles.values():
        if role.name in PROMPTED and not role.prompt.strip():
            yield f"agents/{role.name}.toml: prompt: empty; this role is asked with it"
        for key, source in _list_templates(role):
            where = f"agents/{role.name}.toml: {key}"
            try:
                tree = parse(source, where)
            except CardError as error:
                yield from error.problems
                continue
            yield from _check_template_names(tree, role.name, where)
            yield from _check_template_fields(tree, where)


def _list_templates(role: Role) -> Iterator[tuple[str, str]]:
    yield from (
        ("system", role.system),
        ("prompt", role.prompt),
        ("language", role.language),
    )
    for nudges, where in ((role, ""), (role.in_culture, "in_culture.")):
        if nudges:
            yield f"{where}opening", nudges.opening
            yield f"{where}free_cue", nudges.free_cue
            yield from ((f"{where}{cue.name}", cue.text) for cue in nudges.cues)


def _check_template_names(tree: nodes.Template, role: str, where: str) -> Iterator[str]:
    facts = FACTS.get(role)
    if facts is None:  # a role of a benchmark of one's own
        return
    for name in sorted(meta.find_undeclared_variables(tree)):
        if name not in facts and name not in SANDBOX.globals and not _is_tested_for(tree, name):
            line = next((n.lineno for n in tree.find_all(nodes.Name) if n.name == name), 1)
            yield f"{where}: line {line}: no name {name!r} here. {nearest(name, sorted(facts))}"


def _is_tested_for(tree: nodes.Template, name: str) -> bool:
    """Return whether a template tests if a name is defined."""
    tests = [n for n in tree.find_all(nodes.Test) if n.name in ("defined", "undefined")]
    filters = [n for n in tree.find_all(nodes.Filter) if n.name in ("default", "d")]
    return any(isinstance(n.node, nodes.Name) and n.node.name == name for n in (*tests, *filters))


def _check_template_fields(tree: nodes.Template, where: str) -> Iterator[str]:
    kinds = dict(KINDS)
    for loop in tree.find_all(nodes.For):
        if isinstance(loop.target, nodes.Name):
            kinds.pop(loop.target.name, None)
            if isinstance(loop.iter, nodes.Name) and loop.iter.name in ELEMENTS:
                kinds[loop.target.name] = ELEMENTS[loop.iter.name]
    for assignment in tree.find_all((nodes.Assign, nodes.AssignBlock)):
        kinds.pop(getattr(getattr(assignment, "target", None), "name", ""), None)
    for part in tree.find_all(nodes.Getattr):
        kind = kinds.get(part.node.name) if isinstance(part.node, nodes.Name) else None
        fields = (
            {*kind.model_fields, *(p for p in PROPERTIES if hasattr(kind, p))}
            if kind
            else {part.attr}
        )
        if part.attr not in fields:
            name = (
                f"{part.node.name}.{part.attr}" if isinstance(part.node, nodes.Name) else part.attr
            )
            yield (
                f"{where}: line {part.lineno}: no field {name!r}."
                f" {nearest(part.attr, sorted(fields))}"
            )


# ------------------------------------------------------------------- words


def _check_generalising(workspace: Workspace) -> Iterator[str]:
    for culture in workspace.cultures.values():
        where = f"personas/{culture.name}/culture.toml"
        for key, text in [
            ("style", culture.style),
            *((f"norm.{i}.text", n.text) for i, n in enumerate(culture.norms)),
        ]:
            if word := find_generalisation(text, culture.title):
                short = text if len(text) <= 80 else text[:79] + "…"
                yield (
                    f"{where}: {key}: {word!r} speaks for everyone: {short} Say whom it holds for:"
                    " many, most, some, often, usually, tends to"
                )


def find_generalisation(text: str, people: str = "") -> str:
    """Return the words with which a text speaks for a whole people; empty if it does not, or says
    "many" or "often".

    >>> find_generalisation("All Japanese always bow."), find_generalisation("Many always bow.")
    ('All Japanese', '')
    """
    whole = re.compile(
        r"\b(?:all|every|no)(?: of)?(?: the)?"
        rf" (?:{re.escape(people) or 'people'}|people|men|women|families)\b",
        re.IGNORECASE,
    )
    for sentence in re.split(r"(?<=[.!?;。！？؛।])\s*", text):
        if hit := whole.search(sentence):
            if not re.search(
                r"\b(?:not|nearly|almost)\s*$", sentence[: hit.start()], re.IGNORECASE
            ):
                return hit[0]
        elif (hit := EVERYONE.search(sentence)) and not HEDGE.search(sentence):
            return hit[0]
    return ""


def _compile_words(words: str, unspaced: str) -> re.Pattern[str]:
    """Return a pattern of `words`, which stand alone, and of `unspaced` ones; `_` is white
    space.
    """
    pattern = "|".join(word.replace("_", r"\s+") for word in words.split())
    return re.compile(rf"\b(?:{pattern})\b|{'|'.join(unspaced.split())}", re.IGNORECASE)


# English, German, French, Spanish, Portuguese, Italian, Dutch, Turkish, Polish, Russian,
# Indonesian, Arabic, Hindi, Bengali; Chinese, Japanese, Korean.
EVERYONE = _compile_words(
    """
    all every everyone everybody always never nobody no_one none
    alle alles jeder jede immer stets nie niemals niemand ausnahmslos
    tous toutes toujours jamais personne_ne chaque
    todos todas siempre nunca jamás nadie cada
    sempre jamais ninguém tutti tutte nessuno ogni
    iedereen altijd nooit niemand elke
    bütün tüm herkes daima her_zaman asla hiç_kimse hiçbir
    wszyscy wszystkie zawsze nigdy nikt każdy
    все всегда никогда никто каждый
    semua selalu tidak_pernah setiap
    كل جميع دائما دائمًا أبدا أبدًا
    without_(?:any_)?exceptions? invariably to_a_man ohne_ausnahmen? sans_exception
    sin_excepción sem_exceção senza_eccezion[ei]
    zonder_uitzondering istisnasız bez_wyjątku без_исключений без_исключения tanpa_kecuali
    بلا_استثناء دون_استثناء
    """,
    "无一例外 無一例外 毫无例外 例外なく 예외없이 所有 总是 總是 从不 從不 永远 全都 人人 すべて"
    " 全て 全員 いつも 必ず 決して みんな 常に 모든 항상 언제나 절대 아무도 누구나 모두 सभी हमेशा"
    " सदैव সবাই সবসময় সর্বদা প্রত্যেকে",
)
HEDGE = _compile_words(
    """
    many most mostly some often usually common commonly tends? tend several frequently sometimes
    generally widely typically
    customary expected can may might rarely seldom few still largely part nearly almost hardly
    not_all not_every not_always
    (?:nobody|no_one|everyone|everybody)_(?:should|ought) (?:should|ought_to)_(?:never|always)
    niemand_sollte personne_ne_devrait nadie_debería ninguém_deveria nessuno_dovrebbe
    viele vielen vieler manche manchen oft häufig meist meistens einige gewöhnlich üblich eher
    selten kann können mag fast
    nicht_alle nicht_immer
    beaucoup plupart certains certaines souvent parfois généralement habituellement rarement
    peut peuvent presque
    muchos muchas mayoría algunos algunas suele suelen frecuentemente menudo veces generalmente
    puede pueden casi
    muitos muitas maioria alguns algumas costuma costumam frequentemente vezes geralmente pode
    podem quase
    molti molte maggior alcuni alcune spesso talvolta generalmente può possono quasi
    veel velen meeste sommige vaak soms meestal gewoonlijk kan kunnen bijna
    çoğu birçok bazı sık_sık genellikle bazen çoğunlukla pek_çok neredeyse
    wielu wiele większość niektórzy często zwykle czasem może prawie
    многие большинство некоторые часто обычно иногда может почти
    banyak sebagian beberapa sering biasanya kadang mungkin hampir
    كثير كثيرون معظم بعض غالبا غالبًا عادة أحيانا أحيانًا
    """,
    "许多 許多 很多 多数 多數 有些 往往 常常 通常 有时 几乎 多く 一部 しばしば よく ことがある 多い"
    " 傾向 많은 대부분 일부 자주 보통 흔히 종종 때때로 거의 कई अधिकतर कुछ अक्सर आमतौर অনেক বেশিরভাগ"
    " কিছু প্রায় সাধারণত",
)
