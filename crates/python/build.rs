//! How an extension module is linked where the linker wants to be told that Python's symbols come later (macOS).

fn main() {
    pyo3_build_config::add_extension_module_link_args();
}
