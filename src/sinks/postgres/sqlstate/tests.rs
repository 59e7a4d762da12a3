use super::*;

const FACTS: ErrorFacts<'static> = ErrorFacts {
    sqlstate: None,
    step: Step::CopyLeaf,
    own_deadline: false,
    read_only_server: false,
    table: None,
    constraint: None,
    column: None,
    row_in_context: false,
    leaf_in_doubt: false,
    in_a_row: 1,
    second_batch: false,
};

fn decided(facts: ErrorFacts<'_>) -> String {
    let outcome = decide(&facts);
    outcome.index(); // Each pair is one that metrics know.
    format!("{}/{}", outcome.class.as_str(), outcome.action.as_str())
}

fn at(step: Step, sqlstate: &'static str) -> ErrorFacts<'static> {
    ErrorFacts { sqlstate: Some(sqlstate), step, ..FACTS }
}

#[test]
fn sqlstate_alone_decides_where_nothing_else_matters() {
    let table = [
        ("connection/reconnect", "08000 08001 08003 08004 08006"),
        ("commit_unknown/ask_ledger", "08007 40003"),
        ("read_only/evict_pool", "25006"),
        ("conflict/retry", "40001 40P01"),
        ("lock/retry", "55P03 55006"),
        ("cancelled/retry", "57014"),
        ("shutdown/reconnect", "57P01 57P02 57P03 57P05 25P03 25P04"),
        ("disk_full/retry", "53100"),
        ("resources/retry", "53000 53200 53300 53400"),
        ("storage/hold", "58030 XX001 XX002"),
        ("missing_leaf/make_partition", "42P01"),
        ("schema/hold", "23514 42703 42804 42501 3F000 42P10 23502"),
        ("duplicate/deduplicate", "23505"),
        ("data/isolate", "22P02 22P05 22021 22003 22P03 54000 54001 23503 23P01"),
        ("auth/hold", "28000 28P01 3D000 57P04"),
        ("session/reconnect", "26000 42P05 25P01 25P02 34000"),
        ("unknown/reconnect", "XX000 08P01 0A000 P0001 42601"),
    ];
    for (expected, sqlstates) in table {
        for sqlstate in sqlstates.split(' ') {
            assert_eq!(decided(at(Step::CopyLeaf, sqlstate)), expected, "{sqlstate}");
        }
    }
}

#[test]
fn loss_after_commit_was_sent_is_an_unknown_outcome() {
    for sqlstate in [None, Some("08006"), Some("57P01"), Some("57P02"), Some("25P03")] {
        for step in [Step::Commit, Step::CopyLeaf] {
            let unknown = decided(ErrorFacts { sqlstate, step, ..FACTS }) == "commit_unknown/ask_ledger";
            assert_eq!(unknown, step == Step::Commit, "{sqlstate:?}");
        }
    }
    // An answer to COMMIT is no loss.
    assert_eq!(decided(at(Step::Commit, "40001")), "conflict/retry");
    assert_eq!(decided(at(Step::Commit, "53100")), "disk_full/retry");
}

#[test]
fn our_own_deadline_is_not_an_administrators() {
    let deadline = |step| ErrorFacts { own_deadline: true, step, ..FACTS };
    assert_eq!(decided(deadline(Step::CopyLeaf)), "deadline/reconnect");
    assert_eq!(decided(deadline(Step::Commit)), "commit_unknown/ask_ledger");
    assert_eq!(decided(at(Step::CopyLeaf, "57014")), "cancelled/retry");
}

#[test]
fn standby_that_answers_the_door_evicts_the_pool() {
    let facts = ErrorFacts { read_only_server: true, step: Step::Connect, ..FACTS };
    assert_eq!(decided(facts), "read_only/evict_pool");
    assert_eq!(decided(ErrorFacts { step: Step::Connect, ..FACTS }), "connection/reconnect");
}

#[test]
fn three_kinds_of_23514_are_told_apart_by_fields() {
    let check = |table, constraint| ErrorFacts { table, constraint, ..at(Step::CopyLeaf, "23514") };
    assert_eq!(decided(check(Some("events"), None)), "missing_leaf/make_partition");
    assert_eq!(decided(check(Some("events_2024_02"), None)), "schema/hold");
    assert_eq!(decided(check(Some("events_2024_02"), Some("no_x"))), "data/isolate");
}

#[test]
fn null_is_the_rows_fault_only_in_a_column_that_we_send() {
    let null = |column| ErrorFacts { column: Some(column), ..at(Step::CopyLeaf, "23502") };
    assert_eq!(decided(null("timestamp")), "data/isolate");
    assert_eq!(decided(null("payload")), "data/isolate");
    assert_eq!(decided(null("tenant")), "schema/hold");
}

#[test]
fn missing_table_is_known_by_the_statement() {
    for (step, expected) in [
        (Step::CopyLeaf, "missing_leaf/make_partition"),
        (Step::InsertLeaf, "missing_leaf/make_partition"),
        (Step::Stage, "session/reconnect"),
        (Step::Ledger, "schema/hold"),
        (Step::Quarantine, "schema/hold"),
    ] {
        assert_eq!(decided(at(step, "42P01")), expected, "{step:?}");
    }
}

#[test]
fn double_is_ours_on_the_leaf_and_an_operators_behind_on_conflict() {
    for (step, expected) in [
        (Step::CopyLeaf, "duplicate/deduplicate"),
        (Step::InsertLeaf, "data/isolate"),
        (Step::Ledger, "unknown/reconnect"),
    ] {
        assert_eq!(decided(at(step, "23505")), expected, "{step:?}");
    }
}

#[test]
fn leaf_in_doubt_is_looked_after_before_the_schema_is_blamed() {
    for sqlstate in ["42P10", "42703", "42501", "23514"] {
        let facts = ErrorFacts { leaf_in_doubt: true, ..at(Step::InsertLeaf, sqlstate) };
        assert_eq!(decided(facts), "detached_leaf/make_partition", "{sqlstate}");
    }
}

#[test]
fn wrong_encoding_of_a_second_batch_is_our_bug() {
    for sqlstate in ["22P03", "22P04", "08P01", "XX000"] {
        let facts = ErrorFacts { row_in_context: true, ..at(Step::CopyLeaf, sqlstate) };
        assert_eq!(decided(facts), "encoding/isolate", "{sqlstate}");
        let facts = ErrorFacts { second_batch: true, ..facts };
        assert_eq!(decided(facts), "encoding/hold", "{sqlstate}");
    }
}

#[test]
fn what_comes_again_and_again_is_no_accident() {
    let often =
        |sqlstate, in_a_row, row_in_context| ErrorFacts { in_a_row, row_in_context, ..at(Step::CopyLeaf, sqlstate) };
    assert_eq!(decided(often("26000", 2, false)), "session/reconnect");
    assert_eq!(decided(often("26000", 3, false)), "session/hold");
    assert_eq!(decided(often("P0001", 4, true)), "unknown/reconnect");
    assert_eq!(decided(often("P0001", 5, true)), "unknown/isolate");
    assert_eq!(decided(often("P0001", 5, false)), "unknown/hold");
    let ledger = ErrorFacts { step: Step::Ledger, ..often("22021", 5, true) };
    assert_eq!(decided(ledger), "unknown/hold");
}

#[test]
fn row_errors_outside_of_rows_are_not_a_rows_fault() {
    for sqlstate in ["22P02", "23503", "54000", "23P01"] {
        assert_eq!(decided(at(Step::Ledger, sqlstate)), "unknown/reconnect", "{sqlstate}");
    }
    assert_eq!(decided(at(Step::MakeLeaf, "42501")), "schema/hold");
}
