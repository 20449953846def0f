"""Doctors' judgements: who may judge, what is shown to whom, every vote kept, and the labels that follow.

    schema    the tables as numbered migrations
    store     open_store; transactions; the hash-chained log under every change; Refused, Unavailable
    rubric    the rubrics (SPF with nine abilities, IvyGPT's four criteria, overall), Verdict, the order that follows
    sampling  order of items, sides, when a repeat is due: pure functions
    projects  create_project, guideline, revise_guideline, add_items, edit_item
    people    raters, roles, passwords, invitations, sessions
    queue     next_item, view, renew: leases on an item's places
    labels    settle, labels, next_dispute: what two doctors' votes come to, and the expert's queue
    votes     submit, skip, undo, history
    manage    summary, rating_matrix: the manager's numbers
    agreement coefficients with intervals for each dimension, pair of raters and month
    audit     verify, backup, restore, dump
    exchange  records in and out, rounds; pairs, TRL, LLaMA-Factory
    label_studio   Label Studio tasks, both ways
    web       the page itself: `xinglin annotate serve`

A page needs this much:

    store = open_store("annotate.db")                          # or postgresql://USER@HOST/DATABASE
    rater = authenticate(store, name, password)                # Refused("login" | "throttled")
    shown = next_item(store, rater, project_id)                # View, or None when there is nothing left
    ack = submit(store, rater, shown.lease, client_id, verdict_from_json(body), events)
    shown = undo(store, rater, project_id, client_id)          # the last one again, same sides
    dispute = next_dispute(store, expert, project_id)          # View with the votes, blind to names
    ack = submit(store, expert, dispute.lease, client_id, verdict, events)   # the reason is its comment

A page only ever holds lease tokens and positions: never an item's id, never who wrote an answer, never whether an item
is a repeat or gold. `Refused.code` says which answer a page owes the doctor; `Unavailable` means "not saved yet".
"""
