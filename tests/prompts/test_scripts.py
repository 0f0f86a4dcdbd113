"""Every step of prompt filtering on prompts in many scripts: distinct ones stay, near-duplicates go."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from vr_pipeline.pipelines.prompt_filtering import nodes
from vr_pipeline.prompts.config import CleaningParameters, PromptFilteringParameters
from vr_pipeline.prompts.diversity import choose_diverse
from vr_pipeline.prompts.embedders import CoveredEmbedder, load_embedder
from vr_pipeline.prompts.embedding_store import Embeddings, embedding_keys
from vr_pipeline.prompts.language_tasks import parse_rewrite
from vr_pipeline.prompts.read import read_prompts
from vr_pipeline.prompts.report import filter_report
from vr_pipeline.prompts.rouge import tokenize
from vr_pipeline.prompts.rules import RULES, Drop, Prompt
from vr_pipeline.prompts.segments import is_covered, main_script, segments
from vr_pipeline.prompts.words import length_in_words, words

# Three scenes (a yellow tram climbs a hill in fog; two swans on a still lake in the morning; a baker takes bread from a
# hot oven) and the first one again with a word more.
SCENES = {
    "LATIN": (
        "a yellow tram climbs a steep hill in the fog",
        "two swans glide over a still lake in the morning",
        "the baker takes fresh bread out of a hot oven",
        "a yellow tram climbs a very steep hill in the fog",
    ),
    "LATIN with marks": (
        "un tramway jaune gravit une côte raide à travers la brume épaisse",
        "deux cygnes glissent à l’aube sur un étang désert",
        "le pâtissier sort du pain frais d’un four brûlant",
        "un vieux tramway jaune gravit une côte raide à travers la brume épaisse",
    ),
    "CYRILLIC": (
        "жёлтый трамвай поднимается на крутой холм в тумане",
        "два лебедя плывут утром по спокойному озеру",
        "пекарь достаёт свежий хлеб из горячей печи",
        "жёлтый трамвай медленно поднимается на крутой холм в тумане",
    ),
    "GREEK": (
        "ένα κίτρινο τραμ ανεβαίνει τον απότομο λόφο στην ομίχλη",
        "δύο κύκνοι γλιστρούν το πρωί στην ήσυχη λίμνη",
        "ο φούρναρης βγάζει φρέσκο ψωμί από τον καυτό φούρνο",
        "ένα παλιό κίτρινο τραμ ανεβαίνει τον απότομο λόφο στην ομίχλη",
    ),
    "ARABIC": (
        "ترام أصفر يصعد تلة شديدة الانحدار في الضباب",
        "بجعتان تسبحان صباحا فوق بحيرة هادئة",
        "الخباز يخرج الخبز الطازج من الفرن الساخن",
        "ترام أصفر قديم يصعد تلة شديدة الانحدار في الضباب",
    ),
    "HEBREW": (
        "חשמלית צהובה מטפסת על גבעה תלולה בערפל",
        "שני ברבורים שטים בבוקר על אגם שקט",
        "האופה מוציא לחם טרי מהתנור החם",
        "חשמלית צהובה ישנה מטפסת על גבעה תלולה בערפל",
    ),
    "DEVANAGARI": (
        "कोहरे में पीली ट्राम खड़ी पहाड़ी पर चढ़ती है",
        "सुबह दो हंस शांत झील पर तैरते हैं",
        "नानबाई गरम तंदूर से ताज़ी रोटी निकालता है",
        "कोहरे में पुरानी पीली ट्राम खड़ी पहाड़ी पर चढ़ती है",
    ),
    "BENGALI": (
        "কুয়াশায় হলুদ ট্রাম খাড়া পাহাড়ে উঠছে",
        "সকালে দুটি রাজহাঁস শান্ত হ্রদে ভাসছে",
        "রুটিওয়ালা গরম চুলা থেকে টাটকা রুটি বের করছে",
        "কুয়াশায় পুরনো হলুদ ট্রাম খাড়া পাহাড়ে উঠছে",
    ),
    "THAI": (
        "รถรางสีเหลืองไต่ขึ้นเนินชันในสายหมอก",
        "หงส์สองตัวลอยอยู่กลางทะเลสาบตอนเช้า",
        "คนทำขนมปังหยิบขนมปังร้อนๆออกจากเตา",
        "รถรางสีเหลืองเก่าไต่ขึ้นเนินชันในสายหมอก",
    ),
    "CJK": (
        "黄色电车在浓雾中爬上陡峭的山坡",
        "清晨两只天鹅游过平静的湖面",
        "面包师从热炉里取出新鲜的面包",
        "黄色旧电车在浓雾中爬上陡峭的山坡",
    ),
    "HIRAGANA": (
        "霧の中を黄色い路面電車が急な坂をのぼっていく",
        "朝の静かな湖を二羽の白鳥がすべるように泳ぐ",
        "パン屋が熱いかまどから焼きたてのパンを出す",
        "霧の中を古い黄色い路面電車が急な坂をのぼっていく",
    ),
    "HANGUL": (
        "안개 속에서 노란 전차가 가파른 언덕을 오른다",
        "아침에 백조 두 마리가 잔잔한 호수를 헤엄친다",
        "제빵사가 뜨거운 오븐에서 갓 구운 빵을 꺼낸다",
        "안개 속에서 낡은 노란 전차가 가파른 언덕을 오른다",
    ),
}
TAG = ", 4K, HDR"


def through_the_filter(folder: Path, prompts: list[str], **settings: object) -> tuple[pd.DataFrame, ...]:
    """The kept prompts of all steps with the demo's embedder, all decisions, and the report."""
    parameters = PromptFilteringParameters(
        split={"test_fraction": 0.5, "validation_fraction": 0.0, "salt": "s"}, **settings
    )
    (folder / "p.txt").write_text("\n".join(prompts) + "\n", encoding="utf-8")
    clean, dropped = nodes.clean_prompts(read_prompts(folder / "p.txt"), parameters)
    distinct, same_words = nodes.drop_same_words(clean, parameters)
    texts = distinct["prompt"].tolist()
    embeddings = Embeddings(embedding_keys(texts), load_embedder(parameters.semantic.embedder).embed(texts))
    meant, same_meaning = nodes.drop_same_meaning(distinct, embeddings, parameters)
    meant = meant.assign(cleaned_prompt=meant["prompt"], embedded_prompt=meant["prompt"], language_model="")
    chosen, not_chosen = nodes.choose_prompts(meant, embeddings, parameters)
    divided, leaks = nodes.split_prompts(chosen, embeddings, parameters)
    decisions = nodes.collect_decisions(divided, dropped, same_words, same_meaning, not_chosen, leaks)
    filtered = divided.assign(source_id="")
    report = filter_report(decisions, clean, distinct, filtered, embeddings, parameters)
    return divided, decisions, report


def test_all_scripts_through_all_steps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prompts = [scene + TAG for scenes in SCENES.values() for scene in scenes]
    with caplog.at_level(logging.WARNING):
        kept, decisions, report = through_the_filter(tmp_path, prompts)
    gone = decisions[~decisions["kept"]]
    assert gone["row"].tolist() == [4 * number for number in range(1, len(SCENES) + 1)], gone[["prompt", "reason"]]
    assert set(gone["rule"]) <= {"same_words", "leak_between_splits"}
    assert len(kept) == 3 * len(SCENES)
    for script in SCENES:
        name = script.split(" ")[0]
        unseen = report["scripts"][name]["not_compared_by_meaning"]
        assert report["scripts"][name]["read"] == (8 if name == "LATIN" else 4)
        assert unseen == 0 if name == "LATIN" else unseen >= 3
    assert "are not compared by meaning" in caplog.text
    assert "ARABIC 3" in caplog.text
    assert report["nearest_similarity"]["cosine"]["before"]["n"] == 6


def test_prompts_that_differ_by_emoji_or_by_what_stands_between_tags(tmp_path: Path) -> None:
    prompts = [
        "🐱 and 🐭 on the blue kitchen table",
        "🚗 and 🚲 on the blue kitchen table",
        "cinematic shot of 老虎在雪山上奔跑, 4K, HDR, octane render",
        "cinematic shot of 帆船驶过金色海湾, 4K, HDR, octane render",
        "cinematic shot of старый белый маяк",
        "cinematic shot of مدينة قديمة جميلة",
    ]
    kept, decisions, _ = through_the_filter(tmp_path, prompts, rouge={"threshold": 0.75})
    assert len(kept) == len(prompts), decisions[["prompt", "reason"]]


@given(st.text(st.characters(max_codepoint=127), max_size=60))
def test_ascii_is_cut_as_rouge_score_cuts_it(text: str) -> None:
    assert segments(text) == tokenize(text)


@given(st.text(max_size=30))
def test_no_letter_digit_or_emoji_is_unseen(text: str) -> None:
    seen = regex.search(r"[\p{L}\p{N}\p{Extended_Pictographic}]", text.replace("\u0640", ""))
    assert bool(segments(text)) >= bool(seen)
    assert is_covered(text, ()) is True


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("CAFÉ", "cafe\u0301"),
        ("Straße", "STRASSE"),
        ("ΟΔΟΣ", "οδος"),
        ("ｃａｔ ４Ｋ", "cat 4k"),
        ("كِتَابٌ", "كتاب"),
        ("كتـــاب", "كتاب"),
        ("שָׁלוֹם", "שלום"),
        ("\u200fخط\u200e", "خط"),
        ("می\u200cخواهم", "میخواهم"),
        ("❤\ufe0f", "❤"),
        ("한글", "\u1112\u1161\u11ab\u1100\u1173\u11af"),
        ("ｶﾞﾗｽ", "ガラス"),
    ],
)
def test_forms_that_are_the_same_to_a_reader(one: str, other: str) -> None:
    assert segments(one) == segments(other)


def test_pieces_and_scripts() -> None:
    assert segments("一只猫, 4K") == ["一", "只", "猫", "4k"]
    assert segments("ねこ 4K") == ["ねこ", "4k"]
    assert segments("แมวดี") == ["แม", "มว", "วดี"]  # a mark stays with its letter
    assert segments("हिन्दी में") == ["हिन्दी", "में"]
    assert segments("🐱 runs") == ["🐱", "runs"]
    for scenes, script in zip(SCENES.values(), SCENES, strict=True):
        assert {main_script(scene + TAG) for scene in scenes[:1]} <= {script.split(" ")[0], "CJK"}
    assert main_script("4 🐱") == "NONE"


def test_coverage_counts_words_not_letters() -> None:
    assert is_covered("a red fox, café, naïve, Łódź", ("LATIN",))
    assert not is_covered("cinematic photo of 一只猫, octane render", ("LATIN",))
    assert not is_covered("Một con mèo ngủ trên bậu cửa sổ", ("LATIN",))
    assert is_covered("рыжий кот 4", ("CYRILLIC",))
    assert not is_covered("a red fox", ("CYRILLIC",))
    assert is_covered("a red fox runs 🦊", ("LATIN",))
    assert not is_covered("🦊🐱🐭 run", ("LATIN",))
    assert is_covered("one two three four five six seven eight nine кот", ("LATIN",))


def test_an_embedder_is_asked_about_what_it_covers_only() -> None:
    class Counting:
        def embed(self, texts: list[str]) -> np.ndarray:
            self.asked = list(texts)
            return np.full((len(texts), 4), 0.5, dtype=np.float32)

    model = Counting()
    vectors = CoveredEmbedder(model, ("LATIN",)).embed(["a cat", "рыжий кот", "a dog"])
    assert model.asked == ["a cat", "a dog"]
    assert vectors.any(axis=1).tolist() == [True, False, True]
    assert CoveredEmbedder(model, ("LATIN",)).embed(["кот"]).shape == (1, 4)


def test_a_diverse_choice_gives_uncovered_prompts_their_share() -> None:
    vectors = np.eye(12, 12, dtype=np.float32)
    vectors[8:] = 0
    identifiers = [f"p{number}" for number in range(12)]
    for method in ("k_centre", "clusters"):
        settings = PromptFilteringParameters(diversity={"count": 6, "method": method, "clusters": 3}).diversity
        chosen = choose_diverse(identifiers, vectors, settings)
        assert len(chosen) == 6
        assert int((chosen < 8).sum()) == 4


def apply(rule: str, text: str, **limits: object) -> str | Drop:
    return RULES[rule](Prompt(text), CleaningParameters(**limits))


def test_rules_see_every_script() -> None:
    thai = "".join(scene for scene in SCENES["THAI"]) * 3
    assert 60 < len(words(thai)) < 180
    assert length_in_words("黄色电车在浓雾中爬上") == 5
    assert words("मेरी बिल्ली") == ("मेरी", "बिल्ली")
    assert isinstance(apply("drop_length", "黄" * 401), Drop)
    assert apply("drop_length", "黄" * 400) == "黄" * 400
    long_japanese = "".join(SCENES["HIRAGANA"][:3])
    assert apply("drop_repeated_words", long_japanese) == long_japanese
    assert isinstance(apply("drop_repeated_words", "แมวดำ" * 12), Drop)
    assert isinstance(apply("drop_repeated_words", "黄色电车" * 12), Drop)
    assert apply("drop_symbol_soup", SCENES["DEVANAGARI"][0]) == SCENES["DEVANAGARI"][0]
    assert apply("remove_web_addresses", "看https://a.example/b?c=1这只猫") == "看 这只猫"
    assert apply("remove_control_characters", "a\u200fb\U0001fae8 می\u200cخ") == "ab\U0001fae8 می\u200cخ"


def test_unsafe_words_are_found_where_words_have_no_spaces() -> None:
    unsafe = ("血腥", "Blut", "gun", "เลือด", "кровь", "دم")
    for text in ("一个血腥的场面", "viel BLUT hier", "一把gun在桌上", "มีเลือดบนพื้น", "КРОВЬ на снегу", "دَم على الثلج"):
        assert isinstance(apply("drop_unsafe", text, unsafe_words=unsafe), Drop), text
    for text in ("the gunner smiles", "Blutorange", "кровью", "آدم يمشي"):
        assert apply("drop_unsafe", text, unsafe_words=unsafe) == text


def test_a_rewritten_prompt_may_be_in_another_language() -> None:
    english = "A yellow tram climbs a steep hill in dense fog while two people watch it from the window above"
    chinese = "黄色电车在浓雾中爬上陡峭的山坡两个人从窗口看着它"
    assert parse_rewrite(chinese, f'{{"prompt": "{english}"}}', max_words=200) == {"prompt": english}
