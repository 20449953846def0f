"""The teaching ward: a small invented hospital world with known truth. Synthetic; it proves machinery, not medicine.

world.py        knowledge files -> World            text.py         encyclopaedia documents
patients.py     patients, PatientSimulator          answers.py      answers of known quality
consult.py      questions, conversations, dialogues preferences.py  ranked answers
notes.py        notes with planted identifiers      tasks.py        instructions, entities, exam questions
general.py      general facts, safety items         scorer.py       safety, professionalism, fluency of any answer
build.py        build_ward: all of it into a folder
"""
