//! The prompt of a Completions request: texts and token ids, which no template touches.

use std::borrow::Cow;
use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::tokenizer::Tokenizer;
use super::{CountError, Counts, Method};

/// The prompt, which is one block.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plain<'a> {
    /// Each is tokenized for itself, with the special tokens that its tokenizer puts around it.
    texts: Vec<Cow<'a, str>>,
    /// Tokens that came as ids.
    ids: u64,
}

impl<'a> Plain<'a> {
    /// The prompt of a body; `None` when it is no JSON object.
    pub(super) fn of(body: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(body).map(|Body(prompt)| prompt).ok()
    }

    /// Counts it; each of `boundaries` is its end.
    pub(super) fn count(
        &self,
        tokenizer: &dyn Tokenizer,
        boundaries: &[u32],
        go_on: &dyn Fn() -> bool,
    ) -> Result<Counts, CountError> {
        let mut tokens = self.ids;
        for text in &self.texts {
            if !go_on() {
                return Err(CountError::TooSlow);
            }
            let more = tokenizer.count(text, go_on)?;
            tokens = tokens.saturating_add(more.saturating_add(tokenizer.special_tokens()));
        }
        Ok(Counts {
            prefixes: vec![tokens; boundaries.len()],
            prompt: Some(tokens),
            method: Method::Plain,
        })
    }
}

/// A body, of which the last `prompt` is kept and nothing else.
struct Body<'a>(Plain<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Body<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members).map(Body)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Plain<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a request")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut prompt = Plain::default();
        while let Some(name) = members.next_key::<String>()? {
            if name == "prompt" {
                prompt = Plain::default();
                members.next_value_seed(Part::Prompt.of(&mut prompt))?;
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(prompt)
    }
}

/// What is read: how deep in the prompt it stands.
#[derive(Clone, Copy)]
enum Part {
    /// A text, or a list.
    Prompt,
    /// A text, an id, or a list of ids.
    Element,
    Id,
}

impl Part {
    const fn of<'p, 'a>(self, prompt: &'p mut Plain<'a>) -> Reader<'p, 'a> {
        Reader { part: self, prompt }
    }
}

/// Reads a value into the prompt without a tree of it; what engines refuse counts nothing.
struct Reader<'p, 'a> {
    part: Part,
    prompt: &'p mut Plain<'a>,
}

impl Reader<'_, '_> {
    const fn number<E>(self) -> Result<(), E> {
        if matches!(self.part, Part::Element | Part::Id) {
            self.prompt.ids = self.prompt.ids.saturating_add(1);
        }
        Ok(())
    }
}

impl<'a> Reader<'_, 'a> {
    fn text<E>(self, text: Cow<'a, str>) -> Result<(), E> {
        if matches!(self.part, Part::Prompt | Part::Element) {
            self.prompt.texts.push(text);
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a prompt")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.number()
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.number()
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.number()
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<(), E> {
        self.text(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.text(Cow::Owned(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let part = match self.part {
            Part::Prompt => Part::Element,
            Part::Element => Part::Id,
            Part::Id => {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(());
            }
        };
        while list.next_element_seed(part.of(self.prompt))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A token for each byte, and two around each text.
    struct Bytes;

    impl Tokenizer for Bytes {
        fn count_prefixes(
            &self,
            _: &str,
            ends: &[usize],
            _: &dyn Fn() -> bool,
        ) -> Result<Vec<u64>, CountError> {
            Ok(ends.iter().map(|end| *end as u64).collect())
        }

        fn special_tokens(&self) -> u64 {
            2
        }
    }

    fn tokens(body: &str) -> u64 {
        let prompt = Plain::of(body.as_bytes()).unwrap();
        let counts = prompt.count(&Bytes, &[0], &|| true).unwrap();
        assert_eq!(counts.prompt, counts.prefixes.first().copied());
        counts.prefixes[0]
    }

    #[test]
    fn prompts_of_every_form_are_counted() {
        let table = [
            (json!("four"), 6),
            (json!(""), 2),
            (json!("\u{e9}\n\"\\"), 7),
            (json!(["one", "two", ""]), 12),
            (json!([1, 2, 3]), 3),
            (json!([[1, 2, 3], [4], []]), 4),
            (json!([]), 0),
            (json!(["one", 5, [6, 7]]), 8),
            // What engines refuse.
            (json!(null), 0),
            (json!(5), 0),
            (json!(true), 0),
            (json!({"prompt": "no"}), 0),
            (
                json!([null, true, {"a": "b"}, [["c", 1], {"d": 2}, "e"]]),
                0,
            ),
        ];
        for (prompt, expected) in table {
            let body = json!({"model": "m", "prompt": prompt, "suffix": "prompt"});
            assert_eq!(tokens(&body.to_string()), expected, "{body}");
        }
        assert_eq!(tokens(r#"{"model": "m"}"#), 0);
    }

    #[test]
    fn the_last_of_several_prompts_counts() {
        assert_eq!(tokens(r#"{"prompt": ["a", 1], "pro\u006dpt": "abc"}"#), 5);
    }

    #[test]
    fn bodies_that_are_no_object_have_no_prompt() {
        for body in [
            "",
            "[]",
            "\"prompt\"",
            "{\"prompt\": \"a\"} x",
            "{\"prompt\": }",
        ] {
            assert_eq!(Plain::of(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn millions_of_elements_and_deep_nesting_do_no_harm() {
        let ids = format!(r#"{{"prompt": [{}1]}}"#, "1,".repeat(1 << 21));
        assert_eq!(tokens(&ids), (1 << 21) + 1);
        let texts = format!(r#"{{"prompt": [{}""]}}"#, "\"\",".repeat(1 << 20));
        assert_eq!(tokens(&texts), 2 * ((1 << 20) + 1));
        let deep = format!(
            r#"{{"prompt": {}{}}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        // Whatever becomes of it.
        drop(Plain::of(deep.as_bytes()));
    }

    #[test]
    fn a_count_out_of_time_is_no_count() {
        let prompt = Plain::of(br#"{"prompt": "a"}"#).unwrap();
        let counted = prompt.count(&Bytes, &[0], &|| false);
        assert_eq!(counted, Err(CountError::TooSlow));
    }
}
