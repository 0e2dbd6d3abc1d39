"""How well the embedded engine reads text that it did not write: opinions written by hand, on which
nothing was tuned.
"""

from __future__ import annotations

import culturepark as cp
from culturepark.offline import reading

# (question, opinion, side): 1 affirms, -1 denies, 0 leaves open, None is on another matter. Never
# tune the reader on these.
HELD_OUT: tuple[tuple[str, str, int | None], ...] = (
    (
        "Q27",
        (
            "Nothing pleases a person more than seeing father and mother proud, and that is worth"
            " working for all one's life."
        ),
        1,
    ),
    ("Q27", "Nobody should spend a whole life chasing the approval of parents.", -1),
    ("Q27", "In Seoul the trains are clean and always run on time.", None),
    ("Q28", "Little ones suffer when their mother is away at the office all day.", 1),
    ("Q28", "Kids whose mothers go out to work turn out perfectly fine.", -1),
    (
        "Q28",
        "It depends on the family whether a working mother is good or bad for her children.",
        0,
    ),
    ("Q29", "Politics is a man's trade, and women are simply less suited to lead a country.", 1),
    ("Q29", "Women make excellent political leaders, no worse than men.", -1),
    ("Q30", "A daughter deserves a university education every bit as much as a son.", -1),
    ("Q30", "If money is short, the son should be sent to university rather than the daughter.", 1),
    ("Q32", "Staying at home as a housewife can be every bit as fulfilling as having a job.", 1),
    ("Q32", "Most women would feel empty if they only kept house.", -1),
    ("Q34", "When jobs are scarce, bosses should give them to citizens before foreigners.", 1),
    ("Q34", "A good employer looks at skill, not at the passport.", -1),
    ("Q36", "Children do just as well with two mums or two dads.", 1),
    ("Q36", "A child needs both a father and a mother, and a gay couple cannot replace that.", -1),
    ("Q38", "Sons and daughters must look after their old parents, whatever it costs.", 1),
    ("Q38", "It is perfectly all right to place an elderly parent in a nursing home.", -1),
    ("Q39", "Whoever sits at home without a job soon grows idle.", 1),
    ("Q39", "It is a myth that people without jobs are lazy.", -1),
    ("Q41", "Rest and family are sometimes more important than work.", -1),
    ("Q41", "Duty at work always comes first, and holidays can wait.", 1),
    ("Q124", "More immigrants mean more theft and violence.", 1),
    (
        "Q124",
        "Blaming newcomers for crime is unfair, because they commit no more offences than others.",
        -1,
    ),
    ("Q124", "Grandmothers in Konya bake the best flatbread.", None),
    ("Q126", "There is no link between migrants and terrorist attacks.", -1),
    ("Q126", "Terrorists can slip in among refugees, so immigration makes attacks more likely.", 1),
    ("Q128", "Foreign workers take away jobs and leave locals unemployed.", 1),
    (
        "Q128",
        "Migrants create as many jobs as they fill, so unemployment does not rise because of them.",
        -1,
    ),
    ("Q132", "People get robbed on these streets all the time.", 1),
    ("Q132", "Robberies hardly ever happen in this quiet neighbourhood.", -1),
    ("Q137", "There are fights in the streets almost every weekend.", 1),
    ("Q137", "The streets are peaceful, and no one comes to blows.", -1),
    ("Q158", "Thanks to medicine and machines, life is healthier and easier than ever.", 1),
    ("Q158", "Modern technology has made people sick, tired and uncomfortable.", -1),
    ("Q160", "Society puts too much trust in science and neglects faith.", 1),
    ("Q160", "It is not true that people depend too much on science and too little on faith.", -1),
    ("Q160", "Both sides have a point on science and faith, so it is hard to decide.", 0),
    ("Q162", "You can live a good daily life without knowing any science.", 1),
    (
        "Q162",
        (
            "Knowledge of science is vital for daily life, for example when reading labels on"
            " medicine."
        ),
        -1,
    ),
    ("Q169", "When science and religion disagree, religion is always right.", 1),
    ("Q169", "Scripture can be wrong where science has proof.", -1),
    ("Q170", "Every religion deserves respect and acceptance.", -1),
    ("Q170", "Only one's own faith is true and all the others should be rejected.", 1),
    ("Q196", "Cameras in public squares are a fair tool of the state.", 1),
    ("Q196", "The state has no business filming citizens in the street.", -1),
    ("Q197", "Reading people's e-mails is a step too far for any government.", -1),
    ("Q197", "Authorities ought to be allowed to check messages on the internet.", 1),
    ("Q224", "Ballots are counted properly and without cheating.", 1),
    ("Q224", "The count is rigged, and few trust the result.", -1),
    ("Q226", "The evening news on TV is clearly biased in favour of those in power.", 1),
    ("Q226", "Broadcasters treat all parties the same in their election news.", -1),
    ("Q227", "Candidates hand out cash and food in exchange for votes.", 1),
    ("Q227", "Buying votes is almost unknown here.", -1),
    ("Q230", "Wealthy families decide who wins with their money.", 1),
    ("Q230", "Money cannot buy an election here.", -1),
    ("Q233", "Female candidates face many obstacles that men never meet.", -1),
    ("Q233", "Women can run for office on equal terms with men.", 1),
    ("Q233", "Many families eat grilled fish by the Bosporus on Sundays.", None),
)


def main() -> None:
    """Print the share of right verdicts, each opinion held against both end answers of its
    question.
    """
    pack = cp.load().scenario("world_values")
    right = wrong_side = total = 0
    for name, text, side in HELD_OUT:
        question = next(q for q in pack.questions if q.id == name)
        by_degree = sorted(question.options, key=lambda o: o.degree)
        for option in (by_degree[0], by_degree[-1]):
            agrees = side is not None and side * option.degree > 0
            wanted = "irrelevant" if side is None else "entail" if agrees else "contradict"
            got = reading.judge_opinion(text, question, option.code)[0]
            total += 1
            right += got == wanted
            wrong_side += got != wanted and got != "irrelevant"
    print(
        f"{right} of {total} verdicts right ({right / total:.0%}), {wrong_side} on the wrong side"
        f" ({wrong_side / total:.0%}); the rest were called irrelevant. The filters' figures above"
        " are on the engine's own text."
    )
