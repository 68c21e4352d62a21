//! The fields that bodies of requests have, one line for each route: `name type`, with `!` where a field must be there.

use serde_json::{Map, Value, json};

/// Of chat, completions and responses alike.
const SAMPLING: &str = "temperature number, top_p number, min_p number, typical_p number, top_k integer, \
    repeat_penalty number, repetition_penalty number, repeat_last_n integer, frequency_penalty number, \
    presence_penalty number, dry_multiplier number, dry_base number, dry_allowed_length integer, \
    xtc_probability number, xtc_threshold number, mirostat integer, mirostat_tau number, mirostat_eta number, \
    logit_bias object, stop text, seed integer, n integer, overflow string, adapters strings, speculate integer, \
    grammar string, guided_grammar string, guided_regex string, guided_json object, guided_choice strings, \
    user string, metadata object, safety_identifier string, prompt_cache_key string, service_tier string, \
    store boolean, keep_alive any, stream boolean, stream_options object";

/// Path, method, fields.
pub(super) const BODIES: &[(&str, &str, &[&str])] = &[
    (
        "/v1/chat/completions",
        "POST",
        &[
            "model! model, messages! messages, max_tokens integer, max_completion_tokens integer, logprobs boolean, \
             top_logprobs integer, response_format object, tools objects, tool_choice any, \
             parallel_tool_calls boolean, think boolean, reasoning_effort string, chat_template_kwargs object, \
             continue_final_message boolean, modalities strings, verbosity string, prediction object",
            SAMPLING,
        ],
    ),
    (
        "/v1/completions",
        "POST",
        &[
            "model! model, prompt! any, suffix string, max_tokens integer, logprobs integer, echo boolean, \
             best_of integer, parse_special boolean",
            SAMPLING,
        ],
    ),
    (
        "/v1/embeddings",
        "POST",
        &[
            "model! model, input! any, encoding_format string, dimensions integer, prompt_name string, user string, \
             keep_alive any",
        ],
    ),
    (
        "/v1/responses",
        "POST",
        &[
            "model! model, input any, instructions string, previous_response_id string, max_output_tokens integer, \
             truncation string, text object, think boolean, tools objects, tool_choice any, \
             parallel_tool_calls boolean, reasoning object, include strings, top_logprobs integer, \
             background boolean, max_tool_calls integer",
            SAMPLING,
        ],
    ),
    ("/tokenize", "POST", &["model! model, text string, content string, prompt string, messages messages"]),
    ("/detokenize", "POST", &["model! model, tokens! integers"]),
    ("/apply-template", "POST", &["model! model, messages! messages, tools objects, think boolean"]),
    ("/score", "POST", &["model! model, context string, continuation! string"]),
    (
        "/api/generate",
        "POST",
        &[
            "model! model, prompt string, suffix string, system string, template string, context integers, raw boolean, \
             images strings, logprobs boolean, top_logprobs integer, options object, think any, format any, \
             truncate boolean, shift boolean, stream boolean, keep_alive any",
        ],
    ),
    (
        "/api/chat",
        "POST",
        &[
            "model! model, messages messages, tools objects, logprobs boolean, top_logprobs integer, options object, \
             think any, format any, truncate boolean, shift boolean, stream boolean, keep_alive any",
        ],
    ),
    (
        "/api/embed",
        "POST",
        &["model! model, input any, truncate boolean, dimensions integer, options object, keep_alive any"],
    ),
    ("/api/embeddings", "POST", &["model! model, prompt string, options object, keep_alive any"]),
    ("/api/show", "POST", &["model! model, verbose boolean, system string, template string, options object"]),
    (
        "/api/create",
        "POST",
        &[
            "model! string, from model, files object, adapters object, template string, license any, system string, \
             parameters object, messages messages, stream boolean, quantize string",
        ],
    ),
    ("/api/copy", "POST", &["source! model, destination! string"]),
    ("/api/delete", "DELETE", &["model! string"]),
    ("/api/pull", "POST", &["model! string, insecure boolean, stream boolean"]),
    ("/api/push", "POST", &["model! string, insecure boolean, stream boolean"]),
];

/// The schema of an object with these fields and no others.
pub(super) fn schema(fields: &[&str], models: &[String]) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for field in fields.iter().flat_map(|fields| fields.split(", ")) {
        let (name, kind) = field.trim().split_once(' ').expect("a field has a name and a type");
        let plain = name.trim_end_matches('!');
        if plain != name {
            required.push(plain.to_string());
        }
        properties.insert(plain.to_string(), of_kind(kind.trim(), models));
    }
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn of_kind(kind: &str, models: &[String]) -> Value {
    match kind {
        "any" => json!({}),
        "model" => json!({ "type": "string", "enum": models }),
        "text" => {
            json!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] })
        }
        "strings" => json!({ "type": "array", "items": { "type": "string" } }),
        "integers" => json!({ "type": "array", "items": { "type": "integer" } }),
        "objects" => json!({ "type": "array", "items": { "type": "object" } }),
        "messages" => json!({ "type": "array", "items": {
            "type": "object",
            "required": ["role"],
            "properties": {
                "role": { "type": "string", "enum": ["system", "user", "assistant", "tool"] },
                "content": { "type": "string" },
            },
        } }),
        known => json!({ "type": known }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_become_properties() {
        let schema = schema(&["model! model, n integer"], &["builtin".to_string()]);
        assert_eq!(schema["required"], json!(["model"]));
        assert_eq!(schema["properties"]["model"]["enum"], json!(["builtin"]));
        assert_eq!(schema["properties"]["n"], json!({ "type": "integer" }));
    }

    #[test]
    fn every_type_is_one_of_json() {
        for field in BODIES.iter().flat_map(|(.., fields)| *fields).flat_map(|fields| fields.split(", ")) {
            let kind = of_kind(field.trim().split_once(' ').unwrap().1.trim(), &[]);
            let known = ["string", "number", "integer", "boolean", "object", "array"];
            let is_known = kind["type"].as_str().is_none_or(|kind| known.contains(&kind));
            assert!(is_known, "{field}");
        }
    }
}
