//! Templates of Ollama's models: the part of Go's `text/template` that they use, in an engine of its own.
//!
//! Actions stand between `{{` and `}}`, which may trim the white space beside them (`{{-`, `-}}`). There are `if`, `range`,
//! `with`, `define`, `template`, `block`, `break`, `continue`, variables, pipelines, parentheses, and the functions of
//! [`functions::FUNCTIONS`]. What is not known is refused when the template is read, with its line. Source: Go 1.22,
//! package `text/template`; Ollama, docs/template.md.
//!
//! Where it differs: a missing field is nothing rather than an error; objects are printed as JSON in the order of their
//! keys, as Ollama's types print themselves, and without HTML escapes.

mod chat;
mod functions;
mod lex;
mod parse;
mod print;
mod run;
mod tree;
mod value;

pub(crate) use chat::{GoChat, GoWishes};

use tree::Tree;

/// Bytes that a template may write.
const OUTPUT_MAX: usize = 16 << 20;
/// How deep actions, parentheses and templates may stand inside one another.
const DEPTH_MAX: usize = 64;
/// Actions that one rendering may take.
const STEPS_MAX: usize = 1_000_000;

/// A template that was read.
#[derive(Debug)]
pub(crate) struct GoTemplate {
    tree: Tree,
}

impl GoTemplate {
    /// Reads a template; the error says what is wrong and in which line.
    pub fn new(source: &str) -> Result<GoTemplate, String> {
        Ok(GoTemplate { tree: parse::parse(source)? })
    }

    /// Whether the template asks for this field of the data, as in `.Messages`.
    pub fn asks_for(&self, field: &str) -> bool {
        self.tree.asks_for(field)
    }
}

/// Whether `source` is a Go template rather than Jinja: Jinja has its statements between `{%` and `%}`.
pub(crate) fn is_go(source: &str) -> bool {
    if source.contains("{%") {
        return false;
    }
    source.split("{{").skip(1).any(|action| {
        let action = action.strip_prefix('-').unwrap_or(action).trim_start();
        let word: String = action.chars().take_while(|c| c.is_ascii_alphabetic()).collect();
        let is_field = action.starts_with('.') || action.starts_with('$') || action.starts_with("/*");
        is_field || lex::KEYWORDS.contains(&word.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Renders `source` on a small conversation.
    fn check(source: &str, expected: &str) {
        let data = json!({
            "S": "text", "Empty": "", "N": 3, "F": 2.5, "T": true, "Nil": null,
            "L": ["a", "b", "c"], "M": { "z": 1, "a": [1, "<x>"] },
            "Messages": [{ "Role": "user", "Content": "Hi" }, { "Role": "assistant", "Content": "Yo" }],
        });
        let got = match GoTemplate::new(source) {
            Ok(template) => template.run(&data).unwrap_or_else(|error| format!("error: {error}")),
            Err(error) => format!("error: {error}"),
        };
        assert_eq!(got, expected, "{source}");
    }

    #[test]
    fn text_is_trimmed_where_a_dash_says_so() {
        check("a {{ .S }} b", "a text b");
        check("a \n {{- .S -}} \n b", "atextb");
        check("a {{- /* nothing */ -}} b{{/* x */}}.", "ab.");
        check("{{ -3 }} {{- -3 }}", "-3-3");
        check("{{ \"}}\" }}{{ `{{` }}", "}}{{");
    }

    #[test]
    fn conditions_are_true_for_what_is_not_empty() {
        check("{{ if .S }}1{{ else }}2{{ end }}", "1");
        check("{{ if .Empty }}1{{ else if .Nil }}2{{ else if .N }}3{{ else }}4{{ end }}", "3");
        check("{{ if and .S .T (gt .N 2) }}1{{ end }}{{ if or .Empty .Nil }}2{{ end }}", "1");
        check("{{ or .Empty .S }}{{ and .S .Empty }}{{ not .S }}", "textfalse");
        check("{{ with .S }}{{ . }}{{ end }}{{ with .Empty }}1{{ else }}2{{ end }}", "text2");
        check("{{ with $x := .S }}{{ $x }}{{ else with .N }}n{{ end }}", "text");
        check("{{ if .Unknown }}1{{ end }}{{ .M.none.deeper }}", "<no value>");
    }

    #[test]
    fn ranges_give_items_indices_and_keys_in_order() {
        check("{{ range .L }}{{ . }},{{ end }}", "a,b,c,");
        check("{{ range $i, $x := .L }}{{ $i }}{{ $x }}{{ end }}", "0a1b2c");
        check("{{ range $k, $v := .M }}{{ $k }}={{ $v }};{{ end }}", "a=[1 <x>];z=1;");
        check("{{ range .Nil }}x{{ else }}none{{ end }}", "none");
        check("{{ range .L }}{{ if eq . \"b\" }}{{ break }}{{ end }}{{ . }}{{ end }}", "a");
        check("{{ range .L }}{{ if eq . \"b\" }}{{ continue }}{{ end }}{{ . }}{{ end }}", "ac");
        check(
            "{{ range $i, $m := .Messages }}{{ $.S }} {{ $m.Role }} {{ .Content }};{{ end }}",
            "text user Hi;text assistant Yo;",
        );
        check(
            "{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}{{ $last }} {{ end }}",
            "false true ",
        );
        check("{{ range 3 }}{{ . }}{{ end }}", "012");
    }

    #[test]
    fn variables_live_in_their_block_and_can_be_set_from_inner_ones() {
        check("{{ $x := 1 }}{{ if .T }}{{ $x = 2 }}{{ end }}{{ $x }}", "2");
        check("{{ $x := 1 }}{{ if .T }}{{ $x := 2 }}{{ $x }}{{ end }}{{ $x }}", "21");
        check("{{ $x }}", "error: line 1: undefined variable $x");
        check("{{ if .T }}{{ $y := 1 }}{{ end }}\n{{ $y }}", "error: line 2: undefined variable $y");
    }

    #[test]
    fn functions_do_what_go_does() {
        check(
            "{{ eq .N 3 }}{{ eq .S \"x\" \"text\" }}{{ ne .N 3 }}{{ lt 1 2.5 }}{{ ge .N 3 }}",
            "truetruefalsetruetrue",
        );
        check("{{ lt \"a\" \"b\" }}{{ le .N 3 }}", "truetrue");
        check("{{ len .S }}{{ len .L }}{{ len .M }}", "432");
        check("{{ index .L 1 }}{{ index .M \"z\" }}{{ index .Messages 0 \"Role\" }}", "b1user");
        check("{{ slice .S 1 3 }}{{ len (slice .L 1) }}", "ex2");
        check("{{ print 1 2 \"a\" \"b\" 3 }}|{{ println .S 1 }}", "1 2ab3|text 1\n");
        check(
            "{{ printf \"%s %d %v %q %5.2f|%-4s|%04d %t %x%%\" .S .N .L .S .F \"a\" .N .T 255 }}",
            "text 3 [a b c] \"text\"  2.50|a   |0003 true ff%",
        );
        check(
            "{{ json .M }} {{ .M }} {{ .L }}",
            "{\"z\":1,\"a\":[1,\"<x>\"]} {\"z\":1,\"a\":[1,\"<x>\"]} [a b c]",
        );
        check("{{ .S | printf \"%s-%s\" \"a\" | len }}", "6");
        check("{{ (index .Messages 1).Content }}", "Yo");
    }

    #[test]
    fn templates_can_be_defined_and_used() {
        check(
            "{{ define \"t\" }}[{{ . }}]{{ end }}{{ template \"t\" .S }}{{ template \"t\" 1 }}",
            "[text][1]",
        );
        check("{{ block \"b\" .L }}{{ len . }}{{ end }}", "3");
        check("{{ template \"none\" }}", "error: line 1: there is no template \"none\"");
        check(
            "{{ define \"t\" }}{{ template \"t\" . }}{{ end }}{{ template \"t\" . }}",
            "error: line 1: templates stand more than 64 deep inside one another",
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (source, expected) in [
            ("\n{{ .S", "line 2: the action is not closed"),
            ("{{ if .S }}", "line 1: {{ if }} has no {{ end }}"),
            ("a\n{{ end }}", "line 2: unexpected {{ end }}"),
            ("{{ else }}", "line 1: unexpected {{ else }}"),
            ("{{ nothing .S }}", "line 1: there is no function \"nothing\""),
            ("{{ .S ) }}", "line 1: unexpected \")\""),
            ("{{ \"abc }}", "line 1: a string is not closed"),
            ("{{ }}", "line 1: the action is empty"),
            ("{{ break }}", "line 1: {{ break }} outside {{ range }}"),
            ("\n{{ index .L 7 }}", "line 2: index: 7 is outside a list of 3"),
            ("{{ len .N }}", "line 1: len: a number has no length"),
            ("{{ eq .S 1 }}", "line 1: eq: a string and a number cannot be compared"),
            ("{{ slice .L 2 1 }}", "line 1: slice: 2 to 1 is outside a list of 3"),
            ("{{ 1 | .S }}", "line 1: only a function can take arguments"),
        ] {
            check(source, &format!("error: {expected}"));
        }
    }

    #[test]
    fn hostile_templates_end() {
        let deep = "{{ if .T }}".repeat(100);
        assert!(GoTemplate::new(&deep).unwrap_err().contains("more than 64 deep"));
        let deep = format!("{{{{ {} }}}}", "(".repeat(100_000));
        assert!(GoTemplate::new(&deep).unwrap_err().contains("more than 64 deep"));
        let many = format!("{}x{}", "{{ range 1000 }}".repeat(4), "{{ end }}".repeat(4));
        let error = GoTemplate::new(&many).unwrap().run(&json!({})).unwrap_err();
        assert!(error.contains("more than 1000000 steps"), "{error}");
        let long = "{{ $x := \"0123456789abcdef\" }}{{ range 30 }}{{ $x = print $x $x }}{{ end }}";
        let error = GoTemplate::new(long).unwrap().run(&json!({})).unwrap_err();
        assert!(error.contains("bytes"), "{error}");
    }

    #[test]
    fn go_is_told_from_jinja() {
        for go in
            ["{{ .Prompt }}", "{{- if .System }}{{ end }}", "a{{range $i, $x := .Messages}}", "{{ $x }}"]
        {
            assert!(is_go(go), "{go}");
        }
        for jinja in
            ["{{ bos_token }}", "{% if x %}{{ .5 }}{% endif %}", "{{- messages[0].content }}", "text"]
        {
            assert!(!is_go(jinja), "{jinja}");
        }
    }
}
