//! The misuses that the compiler refuses, one program each. What they try is said in their first
//! doc comment; the argument is in `strikeslip::mutator`.

#[test]
fn misuses_do_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
