//! `schema` describes the file to editors.

use serde_json::Value;
use tests::Launch;

#[tokio::test]
async fn schema_is_json_and_knows_the_keys_of_the_file() {
    let exit = Launch::without_file()
        .command(["schema"])
        .run()
        .await
        .expect(0);
    let schema: Value = serde_json::from_str(&exit.stdout).unwrap();
    assert!(schema["$schema"].is_string());
    for key in ["gateway", "domain", "routes", "revisions"] {
        assert!(schema["properties"].get(key).is_some(), "{key} is missing");
    }
    let text = schema.to_string();
    for key in [
        "traffic",
        "sticky",
        "concurrency",
        "maxDuration",
        "dotSegments",
        "readiness",
    ] {
        assert!(text.contains(&format!("\"{key}\"")), "{key} is missing");
    }
    assert!(
        text.contains("\"additionalProperties\":false"),
        "unknown keys are errors"
    );
}
