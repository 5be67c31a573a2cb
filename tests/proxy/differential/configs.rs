//! Configurations of basins and streams as JSON.

use serde_json::{Value, json};

use super::ops::{BasinConfig, Field, StreamConfig};

/// Writes a field of an object, or leaves it out.
pub fn set<T>(json: &mut Value, name: &str, field: &Field<T>, to_json: impl Fn(&T) -> Value) {
    match field {
        Field::Absent => {}
        Field::Null => json[name] = Value::Null,
        Field::Set(value) => json[name] = to_json(value),
    }
}

/// A basin's configuration.
pub fn basin_config(config: &BasinConfig) -> Value {
    let mut json = json!({});
    set(
        &mut json,
        "stream_cipher",
        &config.stream_cipher,
        |cipher| json!(cipher),
    );
    set(
        &mut json,
        "create_stream_on_append",
        &config.on_append,
        |on| json!(on),
    );
    set(&mut json, "create_stream_on_read", &config.on_read, |on| {
        json!(on)
    });
    set(
        &mut json,
        "default_stream_config",
        &config.stream,
        stream_config,
    );
    json
}

/// A stream's configuration.
pub fn stream_config(config: &StreamConfig) -> Value {
    let mut json = json!({});
    set(&mut json, "storage_class", &config.storage_class, |class| {
        json!(class)
    });
    set(
        &mut json,
        "retention_policy",
        &config.retention_age,
        |age| json!({ "age": age }),
    );
    set(
        &mut json,
        "timestamping",
        &config.timestamping,
        |(mode, uncapped)| {
            let mut json = json!({});
            if let Some(mode) = mode {
                json["mode"] = json!(mode);
            }
            if let Some(uncapped) = uncapped {
                json["uncapped"] = json!(uncapped);
            }
            json
        },
    );
    set(
        &mut json,
        "delete_on_empty",
        &config.delete_on_empty,
        |age| json!({ "min_age_secs": age }),
    );
    json
}
