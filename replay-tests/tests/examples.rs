//! Every example is a valid graph without warnings.

use std::path::Path;

use convergio_domain::graph::parse_manifest;
use convergio_executor::tool;

#[test]
fn every_example_is_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("the examples are there") {
        let path = entry.expect("readable").path();
        if path.extension().is_some_and(|ending| ending == "yaml") {
            let text = std::fs::read_to_string(&path).expect("text");
            let parsed = parse_manifest(&text, &tool::builtin_catalog())
                .unwrap_or_else(|m| panic!("{m:#?}"));
            assert_eq!(parsed.warnings, [], "{}", path.display());
            count += 1;
        }
    }
    assert!(count >= 4);
}
