use super::*;

fn expand_with(text: &str, variables: &[(&str, &str)]) -> Result<Expansion, Invalid> {
    let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let mut left = MAX_ADDED;
    expand(text, &variables, &mut left)
}

fn expanded(text: &str) -> String {
    expand_with(text, &[("A", "apple"), ("EMPTY", ""), ("_x1", "under")]).unwrap().text
}

#[test]
fn a_variable_is_replaced_by_its_value() {
    assert_eq!(expanded("$A"), "apple");
    assert_eq!(expanded("x${A}y$A-z"), "xappleyapple-z");
    assert_eq!(expanded("$_x1 ${_x1}"), "under under");
    assert_eq!(expanded("$A1"), "", "a name is as long as it can be");
}

#[test]
fn a_default_stands_in_for_what_is_unset_and_with_a_colon_for_what_is_empty() {
    assert_eq!(expanded("${B-d} ${B:-d} ${A-d} ${A:-d}"), "d d apple apple");
    assert_eq!(expanded("[${EMPTY-d}] [${EMPTY:-d}]"), "[] [d]");
    assert_eq!(expanded("${B:-}"), "");
    assert_eq!(expanded("${B:-a:-b}"), "a:-b");
}

#[test]
fn a_replacement_stands_in_for_what_is_set() {
    assert_eq!(expanded("[${A+r}] [${A:+r}] [${B+r}] [${B:+r}]"), "[r] [r] [] []");
    assert_eq!(expanded("[${EMPTY+r}] [${EMPTY:+r}]"), "[r] []");
}

#[test]
fn what_is_required_has_to_be_set() {
    assert_eq!(expanded("${A:?no apple} ${A?} ${EMPTY?none}"), "apple apple ");
    let required =
        |name: &str, message: &str| Err(Invalid::Required { name: name.into(), message: message.into() });
    assert_eq!(expand_with("${B:?no $A}", &[("A", "apple")]), required("B", "no apple"));
    assert_eq!(expand_with("${E:?empty}", &[("E", "")]), required("E", "empty"));
    assert_eq!(expand_with("${B?}", &[]), Err(Invalid::RequiredUnexplained("B".into())));
}

#[test]
fn operands_nest_and_only_the_needed_one_is_asked_for() {
    assert_eq!(expanded("${B:-${C:-${A}}}"), "apple");
    assert_eq!(expanded("${B:-x${A}y}z"), "xappleyz");
    assert_eq!(expanded("${A:-${B:?never asked}}"), "apple");
    let expansion = expand_with("${A:-$B}", &[("A", "a")]).unwrap();
    assert!(expansion.unset.is_empty(), "{expansion:?}");
}

#[test]
fn a_dollar_sign_is_written_twice_or_begins_no_variable() {
    assert_eq!(expanded("$$A $${A} $$$A"), "$A ${A} $apple");
    assert_eq!(expanded("5$ $1 $(date) ^a$"), "5$ $1 $(date) ^a$");
    assert_eq!(expanded("${B:-$$5}"), "$5");
    assert_eq!(expanded("{}}"), "{}}", "a brace is special inside a variable only");
}

#[test]
fn what_is_unset_is_empty_and_told() {
    let expansion = expand_with("$B-${C}-$B", &[]).unwrap();
    assert_eq!(expansion.text, "--");
    assert_eq!(expansion.unset.into_iter().collect::<Vec<_>>(), ["B", "C"]);
}

#[test]
fn malformed_variables_are_refused() {
    for text in [
        "${",
        "${}",
        "${ }",
        "${ A}",
        "${A ",
        "${A!}",
        "${A::8}",
        "${A b}",
        "${1}",
        "${A:-x",
        "${A:-${B}",
        "${A",
    ] {
        let result = expand_with(text, &[("A", "a")]);
        assert!(matches!(result, Err(Invalid::Malformed(_) | Invalid::Unclosed(_))), "{text}: {result:?}");
    }
}

#[test]
fn nesting_and_growth_are_bounded() {
    let nested = |depth: usize| format!("{}x{}", "${B:-".repeat(depth), "}".repeat(depth));
    assert_eq!(expanded(&nested(MAX_NESTING)), "x");
    assert_eq!(expand_with(&nested(MAX_NESTING + 1), &[]), Err(Invalid::TooDeep));
    assert_eq!(expand_with(&nested(100_000), &[]), Err(Invalid::TooDeep));
    let large = "x".repeat(MAX_ADDED / 4);
    assert_eq!(expand_with(&"$A".repeat(5), &[("A", &large)]), Err(Invalid::TooLarge));
    assert!(expand_with(&"$A".repeat(4), &[("A", &large)]).is_ok());
}
