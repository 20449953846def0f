"""The values of one note's slots: the patient, who stays the same over several notes, and what the visit adds.

A value is (kind, content): kind is the identifier's type, or "" for text that identifies nobody. Days stay dates until
they are written, so that one note spells one day in several ways.
"""

from __future__ import annotations

import datetime
import random

from xinglin.data.ward.labelled import numbers
from xinglin.data.ward.labelled.language import Language, Region
from xinglin.data.ward.world import World

Values = dict[str, tuple[str, str | datetime.date]]
PAPERS = ("identity", "papers_hk", "papers_foreign", "papers_military")
KINSHIPS = "妻子 丈夫 儿子 女儿 母亲 父亲 弟弟 姐姐 孙子 侄女".split()
DURATIONS = "3天 5天 1周 2周 1月余 半年 2年余 6小时".split()


def draw_patient(language: Language, rng: random.Random) -> tuple[str, dict[str, str], Values]:
    """The kind of papers, the structured fields of the export, and the slots that stay over all notes."""
    sex = rng.choice("男女")
    age = rng.randint(90, 101) if rng.random() < 0.08 else rng.randint(1, 89)
    birth = datetime.date(2023, 1, 1) - datetime.timedelta(days=age * 365 + age // 4 + rng.randint(5, 300))
    papers = rng.choices(PAPERS, (64, 12, 12, 12))[0]
    region = rng.choice(language.regions)
    values: Values = {
        "name": ("name", patient_name(language, papers, rng)),
        "sex": ("", sex),
        "age": ("age_over_89" if age >= 90 else "", str(age)),
        "birth": ("date", birth),
        "id_card": ("id_card", numbers.id_card(region.code, birth, sex, rng)),
        "residence": ("travel_permit", numbers.id_card(rng.choice(("810000", "820000", "830000")), birth, sex, rng)),
        "fpermit": ("foreign_permit", numbers.foreign_permit(birth, rng)),
        "address": ("address", address(language, region, rng)),
        "old_address": ("address", address(language, region, rng)),
        "native": ("address", region.province + (region.city if region.city != region.province else region.district)),
        "employer": ("employer", employer(language, region, rng)),
        "phone": ("phone", numbers.mobile(language, rng)),
        "bank_card": ("bank_card", numbers.bank_card(rng.choice(language.formats["bank"]), rng)),
        **{slot: (slot, formatted(language, slot, rng)) for slot in ("passport", "insurance", "military")},
        "permit": ("travel_permit", formatted(language, "permit", rng)),
        **{slot: ("mrn", formatted(language, slot, rng)) for slot in ("mrn", "clinic_no")},
        **_relatives(language, region, rng),
    }
    return papers, _fields(values, papers), values


def draw_visit(language: Language, world: World, rng: random.Random) -> Values:
    """Staff, places, sample numbers, days and the case of one note."""
    region, elsewhere = rng.choice(language.regions), rng.choice(language.regions)
    disease = rng.choice(world.diseases)
    return {
        **_staff(language, rng),
        **_days(rng),
        **_traces(language, rng),
        "hospital": ("hospital", hospital(language, region, rng)),
        "ref_hospital": ("hospital", hospital(language, elsewhere, rng)),
        "past_hospital": ("hospital", hospital(language, rng.choice(language.regions), rng)),
        "dept": ("", rng.choice(language.lists["departments"])),
        "clock": ("", f"{rng.randint(6, 22):02d}:{rng.randint(0, 59):02d}"),
        "complaint": ("", "、".join(rng.sample(disease.symptoms, min(2, len(disease.symptoms))))),
        "duration": ("", rng.choice(DURATIONS)),
        "finding": ("", rng.choice(disease.signs)),
        "exam": ("", rng.choice(disease.exams).name),
        "diagnosis": ("", disease.name),
    }


def person(language: Language, rng: random.Random) -> tuple[str, str]:
    """Surname and full name of a Han Chinese; three in twenty surnames are rare or compound."""
    surname = rng.choice(language.lists["rare_surnames" if rng.random() < 0.15 else "surnames"])
    given = rng.choice(language.lists["given"])
    single = [name for name in language.lists["given"] if len(name) == 1]
    return surname, surname + (given + rng.choice(single) if len(given) == 1 and rng.random() < 0.3 else given)


def anyone(language: Language, rng: random.Random) -> str:
    """A name of any kind: one in seven is a common word, a minority or a foreign name."""
    kind = rng.choices(("", "common_word_names", "minority", "foreign"), (86, 6, 5, 3))[0]
    return rng.choice(language.lists[kind]) if kind else person(language, rng)[1]


def patient_name(language: Language, papers: str, rng: random.Random) -> str:
    if papers == "papers_foreign" and rng.random() < 0.8:
        return rng.choice(language.lists["foreign"])
    return anyone(language, rng)


def address(language: Language, region: Region, rng: random.Random) -> str:
    return _placed(rng.choice(language.lists["addresses"]), language, region, rng)


def employer(language: Language, region: Region, rng: random.Random) -> str:
    return _placed(rng.choice(language.lists["companies"]), language, region, rng)


def hospital(language: Language, region: Region, rng: random.Random) -> str:
    return _placed(rng.choice(language.lists["hospitals"]), language, region, rng)


def formatted(language: Language, name: str, rng: random.Random) -> str:
    return numbers.by_format(rng.choice(language.formats[name]), rng)


def _placed(form: str, language: Language, region: Region, rng: random.Random) -> str:
    """A form of an address, a company or a hospital, filled for one region."""
    own_city = region.city if region.city != region.province else ""
    picks = {name: rng.choice(language.lists[name + "s"]) for name in ("town", "village", "brand", "trade", "compound")}
    street, street2 = rng.sample(language.lists["streets"], 2)
    return form.format(
        region=region.province + own_city + region.district,
        province=region.province,
        city=region.city,
        city_short=region.city_short,
        dist=region.district,
        street=street,
        street2=street2,
        n=rng.randint(1, 9) if "{n}{n}" in form or "第{n}" in form or "{n}号线" in form else rng.randint(1, 399),
        b=rng.randint(1, 30),
        u=rng.randint(1, 6),
        r=rng.randint(1, 28) * 100 + rng.randint(1, 4),
        **picks,
    )


def _relatives(language: Language, region: Region, rng: random.Random) -> Values:
    kin_sex = rng.choice("男女")
    kin_birth = datetime.date(rng.randint(1950, 2000), rng.randint(1, 12), rng.randint(1, 28))
    return {
        "kin": ("name", anyone(language, rng)),
        "kin2": ("name", anyone(language, rng)),
        "kinship": ("", rng.choice(KINSHIPS)),
        "kin_phone": ("phone", numbers.mobile(language, rng)),
        "kin_id": ("id_card", numbers.id_card(region.code, kin_birth, kin_sex, rng)),
        "kin_address": ("address", address(language, region, rng)),
        "kin_employer": ("employer", employer(language, region, rng)),
        "old_age": ("age_over_89", str(rng.randint(90, 103))),
        "rel_age": ("", str(rng.randint(20, 80))),
    }


def _staff(language: Language, rng: random.Random) -> Values:
    values: Values = {}
    for role in ("doc", "att", "chief", "nurse", "out_doc", "other"):
        surname, name = person(language, rng)
        values[role] = ("name", name)
        values[f"sur_{role}"] = ("name", surname)
    return values


def _days(rng: random.Random) -> Values:
    """Onset, admission, operation, today, discharge and the next visit in order; older days before them."""
    admit = datetime.date(2023, 1, 1) + datetime.timedelta(days=rng.randrange(364))
    after = {"date_onset": -rng.randint(1, 20), "date_admit": 0, "date_op": rng.randint(1, 5)}
    after |= {"date_today": rng.randint(0, 9), "date_out": rng.randint(10, 20), "date_next": rng.randint(21, 60)}
    after |= {"date_past": -rng.randint(60, 2500), "date_past2": -rng.randint(60, 4000)}
    after |= {"md_onset": after["date_onset"], "md_next": after["date_op"] + 3}
    after |= {"ym_past": -rng.randint(300, 6000), "lunar": -rng.randint(4000, 25000)}
    return {slot: ("date", admit + datetime.timedelta(days=shift)) for slot, shift in after.items()}


def _traces(language: Language, rng: random.Random) -> Values:
    """Numbers and addresses that a stay leaves in machines."""
    formats = language.formats
    values: Values = {slot: (slot, formatted(language, slot, rng)) for slot in ("bed", "specimen", "imaging")}
    return values | {
        "pathology": ("specimen", formatted(language, "pathology", rng)),
        "landline": ("landline", numbers.landline(language, rng)),
        "work_phone": ("landline", numbers.landline(language, rng)),
        "email": ("email", f"{formatted(language, 'email', rng)}@{rng.choice(language.lists['email_hosts'])}"),
        "wechat": ("wechat_qq", formatted(language, "wechat", rng)),
        "qq": ("wechat_qq", str(rng.randint(10**5, 10**10 - 1))),
        "plate": ("plate", numbers.plate(rng.choice(formats["plate"]), rng)),
        "url": ("url", rng.choice(formats["url"]) + numbers.by_format("aa00AA", rng)),
        "ip": ("ip", numbers.ip(rng)),
    }


def _fields(values: Values, papers: str) -> dict[str, str]:
    """The export's columns. Foreigners and soldiers have no identity card in them."""
    columns = {"姓名": "name", "性别": "sex", "年龄": "age", "出生日期": "birth", "联系电话": "phone", "住院号": "mrn"}
    columns |= {"门诊号": "clinic_no", "家庭住址": "address", "工作单位": "employer", "医保号": "insurance"}
    columns |= {"联系人": "kin", "联系人电话": "kin_phone"}
    if papers == "identity":
        columns["身份证号"] = "id_card"
    return {column: str(values[slot][1]) for column, slot in columns.items()}
