//! Models in a registry that speaks as Ollama's does: a manifest lists layers, and each layer is a blob.
//!
//! Both directions stand here: a model of this store as a manifest, so that other instances can pull it, and a manifest of
//! another registry as a list of downloads. Files are called by the annotation `org.opencontainers.image.title`. Source: OCI Image
//! Format Specification 1.1, manifest.md and annotations.md; the media types are Ollama's.

use crate::download::{Client, Download};
use crate::manifest::Manifest;
use crate::pull::Progress;
use crate::settings::Settings;
use crate::{Error, ModelName, PullOptions, file_name, parse_digest, sha256};
use serde_json::{Map, Value, json};
use std::ops::ControlFlow;

/// Begins the media types of Ollama's layers.
const OLLAMA: &str = "application/vnd.ollama.image.";
/// A file of a model that is a folder.
const FILE: &str = "application/vnd.rhetor.file";
/// The annotation that says what a file is called.
const TITLE: &str = "org.opencontainers.image.title";
/// The annotations that say where the model came from and what may be done with it.
const SOURCE: &str = "org.opencontainers.image.source";
const LICENCE: &str = "org.opencontainers.image.licenses";
const TERMS: &str = "org.rhetor.licence-terms";
/// The largest text that a layer may be.
const TEXT_BYTES_MAX: u64 = 4 << 20;

/// A blob that a manifest names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// What it is for.
    pub media_type: String,
    /// sha256 in hex.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// The file's name.
    pub title: Option<String>,
    /// The layer itself, where it is no blob of the store: a text of the manifest.
    pub bytes: Option<Vec<u8>>,
}

impl Layer {
    fn text(kind: &str, text: String) -> Layer {
        let bytes = text.into_bytes();
        let (sha256, size) = (sha256::of_bytes(&bytes), bytes.len() as u64);
        Layer { media_type: format!("{OLLAMA}{kind}"), sha256, size, title: None, bytes: Some(bytes) }
    }

    fn to_json(&self) -> Value {
        let mut value = json!({
            "mediaType": self.media_type,
            "digest": format!("sha256:{}", self.sha256),
            "size": self.size,
        });
        if let Some(title) = &self.title {
            value["annotations"] = json!({ TITLE: title });
        }
        value
    }
}

impl Manifest {
    /// The layers of the model, files first.
    pub fn layers(&self) -> Vec<Layer> {
        let file = |media_type: String, file: &crate::StoredFile| Layer {
            media_type,
            sha256: file.sha256.clone(),
            size: file.size,
            title: Some(file.path.clone()),
            bytes: None,
        };
        let media_type = match self.files.as_slice() {
            [only] if only.path.ends_with(".gguf") => format!("{OLLAMA}model"),
            _ => FILE.to_string(),
        };
        let mut layers: Vec<Layer> = self.files.iter().map(|one| file(media_type.clone(), one)).collect();
        let settings = &self.settings;
        layers.extend(settings.adapter.iter().map(|one| file(format!("{OLLAMA}adapter"), one)));
        layers.extend(settings.template.iter().map(|text| Layer::text("template", text.clone())));
        layers.extend(settings.system.iter().map(|text| Layer::text("system", text.clone())));
        if !settings.parameters.is_empty() {
            layers.push(Layer::text("params", json!(settings.parameters).to_string()));
        }
        if !settings.messages.is_empty() {
            layers.push(Layer::text("messages", json!(settings.messages).to_string()));
        }
        layers.extend(settings.licences.iter().map(|text| Layer::text("license", text.clone())));
        layers
    }

    /// The layer that describes the others.
    pub fn config_layer(&self) -> Layer {
        let digests: Vec<String> = self.layers().iter().map(|l| format!("sha256:{}", l.sha256)).collect();
        let is_gguf = self.files.iter().all(|file| file.path.ends_with(".gguf"));
        let mut config = json!({
            "model_format": if is_gguf { "gguf" } else { "safetensors" },
            "rootfs": { "type": "layers", "diff_ids": digests },
        });
        if let Some(requires) = &self.settings.requires {
            config["requires"] = json!(requires);
        }
        let media_type = "application/vnd.docker.container.image.v1+json".to_string();
        Layer { media_type, ..Layer::text("", config.to_string()) }
    }

    /// The manifest as a registry gives it.
    pub fn to_registry(&self) -> String {
        let annotations: Map<String, Value> = [
            (SOURCE, Some(&self.source)),
            (LICENCE, self.licence.as_ref()),
            (TERMS, self.licence_terms.as_ref()),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_string(), json!(value?))))
        .collect();
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": self.config_layer().to_json(),
            "layers": self.layers().iter().map(Layer::to_json).collect::<Vec<_>>(),
            "annotations": annotations,
        })
        .to_string()
    }
}

/// A model found in a registry.
pub struct Found {
    /// The model's files; each `name` is the path inside the model.
    pub files: Vec<Download>,
    /// The files of its adapter.
    pub adapter: Vec<Download>,
    /// What it adds to them; the adapter is empty.
    pub settings: Settings,
    /// Its licence and what that restricts, where the manifest says it.
    pub licence: (Option<String>, Option<String>),
}

/// Asks the registry that `name` names what the model is made of.
pub fn find(
    client: &Client<'_>,
    options: &PullOptions,
    name: &ModelName,
    on_progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Found, Error> {
    let base = base_url(name, options);
    let url = format!("{base}/manifests/{}", name.tag);
    let accept = "application/vnd.docker.distribution.manifest.v2+json";
    let answer = client.json(&url, accept, on_progress).map_err(|error| match error {
        Error::Status { status: 404, .. } => Error::NotFound {
            place: name.host.clone(),
            reason: format!("no model {}/{}:{}", name.namespace, name.model, name.tag),
        },
        other => other,
    })?;
    let broken = |reason: String| Error::Protocol { url: url.clone(), reason };
    let layers = answer["layers"].as_array().ok_or_else(|| broken("it lists no layers".to_string()))?;
    let (mut files, mut adapter, mut settings) = (Vec::new(), Vec::new(), Settings::default());
    for layer in layers {
        let media_type = layer["mediaType"].as_str().unwrap_or_default();
        let sha256 = parse_digest(layer["digest"].as_str().unwrap_or_default())?;
        let title = layer["annotations"][TITLE].as_str();
        let blob = format!("{base}/blobs/sha256:{sha256}");
        let file = |fallback: &str| -> Result<Download, Error> {
            let path = file_name::check(title.unwrap_or(fallback))?.to_string();
            let size = layer["size"].as_u64();
            Ok(Download { url: blob.clone(), name: path, size, sha256: Some(sha256.to_string()) })
        };
        let kind = media_type.strip_prefix(OLLAMA);
        match kind {
            _ if media_type == FILE => files.push(file("")?),
            Some("model") => files.push(file("model.gguf")?),
            Some("adapter") => adapter.push(file("adapter_model.safetensors")?),
            Some("template" | "system" | "params" | "messages" | "license") => {
                let bytes = client.bytes(&blob, "*/*", TEXT_BYTES_MAX, on_progress)?;
                let got = sha256::of_bytes(&bytes);
                if got != sha256 {
                    return Err(Error::Hash { what: blob, expected: sha256.to_string(), got });
                }
                let unread = |error: String| broken(format!("{media_type}: {error}"));
                let text = String::from_utf8(bytes).map_err(|error| unread(error.to_string()))?;
                let parsed = |error: serde_json::Error| unread(error.to_string());
                match kind.unwrap_or_default() {
                    "template" => settings.template = Some(text),
                    "system" => settings.system = Some(text),
                    "params" => settings.parameters = serde_json::from_str(&text).map_err(parsed)?,
                    "messages" => settings.messages = serde_json::from_str(&text).map_err(parsed)?,
                    _ => settings.licences.push(text),
                }
            }
            _ => return Err(broken(format!("layers of the kind {media_type} are not supported"))),
        }
    }
    let mut names: Vec<&str> = files.iter().map(|file: &Download| file.name.as_str()).collect();
    names.sort_unstable();
    if files.is_empty() || names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(broken("its layers are not one model: no file, or two of the same name".to_string()));
    }
    let said = |key: &str| answer["annotations"][key].as_str().map(str::to_string);
    Ok(Found { files, adapter, settings, licence: (said(LICENCE), said(TERMS)) })
}

/// Where the registry keeps a model. Plain http is for this machine, and for others where that is allowed aloud.
fn base_url(name: &ModelName, options: &PullOptions) -> String {
    let http = format!("http://{}/", name.host);
    let scheme = if options.insecure || crate::download::is_loopback(&http) { "http" } else { "https" };
    format!("{scheme}://{}/v2/{}/{}", name.host, name.namespace, name.model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin;
    use crate::settings::Turn;

    #[test]
    fn a_manifest_lists_files_and_texts_by_their_digests() {
        let mut manifest = builtin::manifest();
        manifest.settings.system = Some("Be brief.".to_string());
        manifest.settings.messages = vec![Turn { role: "user".to_string(), content: "Hi".to_string() }];
        let value: Value = serde_json::from_str(&manifest.to_registry()).unwrap();
        let kinds: Vec<&str> =
            value["layers"].as_array().unwrap().iter().map(|l| l["mediaType"].as_str().unwrap()).collect();
        assert_eq!(
            kinds,
            [
                "application/vnd.ollama.image.model",
                "application/vnd.ollama.image.system",
                "application/vnd.ollama.image.messages"
            ]
        );
        assert_eq!(value["layers"][0]["annotations"][TITLE], "builtin.gguf");
        assert_eq!(value["layers"][1]["digest"], format!("sha256:{}", sha256::of_bytes(b"Be brief.")));
    }

    #[test]
    fn other_machines_are_asked_with_encryption_unless_told_otherwise() {
        let options = PullOptions::default();
        let url = |name: &str, options: &PullOptions| base_url(&ModelName::parse(name).unwrap(), options);
        assert_eq!(url("127.0.0.1:80/a/m", &options), "http://127.0.0.1:80/v2/a/m");
        assert_eq!(url("example.org/a/m", &options), "https://example.org/v2/a/m");
        let insecure = PullOptions { insecure: true, ..options };
        assert_eq!(url("example.org/a/m", &insecure), "http://example.org/v2/a/m");
    }
}
