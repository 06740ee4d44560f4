//! The project's own rules, as tests: the floors, the source files, the generated documentation.

#[test]
fn every_arrow_goes_down_and_no_crate_knows_what_it_must_not() {
    holds(xtask::layers::check());
}

#[test]
fn every_source_file_is_short_and_opens_with_what_it_is() {
    holds(xtask::sources::check());
}

#[test]
fn what_documents_name_exists() {
    holds(xtask::references::check());
}

#[test]
fn generated_documentation_agrees_with_the_code() {
    holds(xtask::generated::check_all());
}

fn holds(outcome: xtask::Outcome) {
    match outcome {
        Ok(said) => println!("{said}"),
        Err(faults) => panic!("{}", faults.join("\n")),
    }
}
