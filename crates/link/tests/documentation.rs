//! docs/connections.md says what the URL forms and their options are; here it is held to the code.

use mtcache_link::{FORMS, OPTIONS};

const PAGE: &str = include_str!("../../../docs/connections.md");

fn is_on_the_page(table: &str) {
    assert!(PAGE.contains(table), "docs/connections.md does not have this table; put it in:\n{table}");
}

#[test]
fn every_url_form_is_on_the_page() {
    let mut table = "| URL | leads to | also written |\n|---|---|---|\n".to_owned();
    for form in FORMS {
        let others: Vec<String> = form.schemes[1..].iter().map(|scheme| format!("`{scheme}://`")).collect();
        table.push_str(&format!("| `{}` | {} | {} |\n", form.form, form.leads_to, others.join(", ")));
    }
    is_on_the_page(&table);
}

#[test]
fn every_option_of_a_url_is_on_the_page() {
    let mut table = "| option | in | default | what it says |\n|---|---|---|---|\n".to_owned();
    for option in OPTIONS {
        let also = option.also.map_or_else(String::new, |name| format!(", `{name}`"));
        table.push_str(&format!(
            "| `{}`{also} | {} | {} | {} |\n",
            option.name,
            option.of.words(),
            option.default,
            option.meaning
        ));
    }
    is_on_the_page(&table);
}
