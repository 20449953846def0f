import datetime
import random
import re
from collections import Counter

from xinglin.data.ward.identifiers import check_digit, draw_identity
from xinglin.data.ward.notes import assemble, notes
from xinglin.data.ward.tasks import NOTE_TASKS, entity_conversations, entity_texts, note_tasks
from xinglin.data.ward.world import World

# GB/T 2260 province codes in use; 99 is none of them.
PROVINCES = {*range(11, 16), *range(21, 24), *range(31, 38), *range(41, 47), *range(50, 55), *range(61, 66), 71, 81, 82, 83, 91}  # fmt: skip # noqa: E501


def mod_11_2(id_card: str) -> bool:
    """ISO 7064 MOD 11-2 by its recursive definition, not by the table of weights."""
    remainder = 0
    for character in id_card:
        remainder = (remainder * 2 + (10 if character == "X" else int(character))) % 11
    return remainder == 1


def test_check_digit_agrees_with_the_standards_example() -> None:
    assert check_digit("11010519491231002") == "X"  # the printed example of GB 11643-1999
    assert check_digit("44052418800101001") == "4"


def test_id_cards_are_valid_and_belong_to_nobody() -> None:
    day = datetime.date(2024, 5, 1)
    for seed in range(300):
        age = seed % 90
        who = draw_identity("男" if seed % 2 else "女", age, day, random.Random(seed))
        assert mod_11_2(who.id_card) and len(who.id_card) == 18
        assert int(who.id_card[:2]) not in PROVINCES
        assert int(who.id_card[16]) % 2 == seed % 2
        birth = datetime.datetime.strptime(who.id_card[6:14], "%Y%m%d").date()
        assert day.year - birth.year - ((day.month, day.day) < (birth.month, birth.day)) == age
        assert re.fullmatch(r"154\d{8}", who.phone)


def test_assemble_gives_exact_spans() -> None:
    text, entities = assemble(["姓名：", ("name", "王伟"), "，电话", ("phone", "15400000000")])
    assert text == "姓名：王伟，电话15400000000"
    assert [(e.start, e.end, e.type) for e in entities] == [(3, 5, "name"), (8, 19, "phone")]


def test_notes_have_every_identifier_marked(world: World) -> None:
    found = list(notes(world, 80, 3))
    assert Counter(note.kind for note in found) == dict.fromkeys(
        ("outpatient", "admission", "progress", "discharge"), 20
    )
    kinds = {entity.type for note in found for entity in note.entities}
    assert kinds == {"name", "id_card", "phone", "address", "mrn", "bed", "doctor", "hospital", "date"}
    for note in found:
        assert all(note.text[e.start : e.end] == e.text for e in note.entities)
        marked = [e.text for e in note.entities]
        rest = note.text
        for text in sorted(marked, key=len, reverse=True):
            rest = rest.replace(text, "")
        assert not re.search(r"154\d{8}|99\d{15}|ZY\d|20\d\d[-年/.]|\d床", rest)
        assert note.fields["name"] not in rest and note.fields["diagnosis"]


def test_the_inpatient_notes_of_a_stay_share_one_patient(world: World) -> None:
    found = list(notes(world, 8, 0))
    assert len({note.patient_id for note in found[:4]}) == 1
    assert found[0].patient_id != found[4].patient_id
    assert len({note.fields["id_card"] for note in found[:4]}) == 1


def test_note_tasks_come_in_six_kinds_and_hold_no_identifier(world: World) -> None:
    tasks = list(note_tasks(world, 60, "train", 1))
    assert Counter(t.meta["task_type"] for t in tasks) == dict.fromkeys(NOTE_TASKS, 10)
    text = "".join(message.content for task in tasks for message in task.messages)
    assert not re.search(r"姓名|身份证|电话|住院号|154\d{8}|20\d\d-\d\d|示教医院", text)
    suggested = [t for t in tasks if t.meta["task_type"] == "diagnosis_suggestion"]
    for task in suggested:
        name = world.by_id[task.meta["disease"]].name
        assert name not in task.messages[0].content and name in task.messages[1].content


def test_entity_lists_are_readable_lines(world: World) -> None:
    texts = list(entity_texts(world, 40, "train", 0, held_out=False))
    assert all(item.text[e.start : e.end] == e.text for item in texts for e in item.entities)
    for item, conversation in zip(texts, entity_conversations(texts), strict=True):
        lines = [line.split("\t") for line in conversation.messages[1].content.splitlines()]
        assert {name for name, _ in lines} == {e.text for e in item.entities}
        assert {kind for _, kind in lines} <= {"疾病", "症状", "药物", "检查", "科室"}
