//! What the model without a model says: the same sentence, a tool call, or JSON of a wanted schema.

use serde_json::{Value, json};

use super::{refusal::Refusal, schema};

/// The sentence, piece by piece: one piece is one token.
const WORDS: [&str; 8] = [
    "I",
    " am",
    " a",
    " stand-in",
    ";",
    " nobody",
    " thought",
    ".",
];
/// Longest piece of generated JSON, in characters.
const PIECE_CHARS: usize = 6;

/// What a request asks of the model, whichever API it came by.
pub struct Ask<'r> {
    /// Names of the tools, with the schemas of their arguments.
    pub tools: Vec<(&'r str, &'r Value)>,
    pub choice: Choice<'r>,
    /// The schema that the answer has to satisfy.
    pub format: Option<Value>,
    /// Texts of the last turn, if it is the user's and carries no result of a tool.
    pub last_texts: Vec<&'r str>,
}

/// Which tool the model has to call.
pub enum Choice<'r> {
    /// Whichever the user's last text names, if any.
    Free,
    None,
    Any,
    Named(&'r str),
}

/// What the model says, in pieces as a stream brings them.
pub enum Reply {
    Text(Vec<String>),
    Call {
        name: String,
        /// JSON text.
        arguments: Vec<String>,
    },
}

impl Reply {
    /// The answer to `ask`. A schema that the generator cannot satisfy is refused.
    pub fn to(ask: &Ask<'_>) -> Result<Self, Refusal> {
        if let Some((name, parameters)) = ask.wanted_tool()? {
            let arguments = match parameters {
                Value::Null => json!({}),
                schema => instance(schema)?,
            };
            return Ok(Self::Call {
                name: name.to_owned(),
                arguments: pieces(&arguments),
            });
        }
        Ok(Self::Text(match &ask.format {
            Some(schema) => pieces(&instance(schema)?),
            None => Self::sentence(),
        }))
    }

    /// The sentence.
    pub fn sentence() -> Vec<String> {
        WORDS.map(str::to_owned).into()
    }

    pub fn tokens(&self) -> u64 {
        let (Self::Text(pieces)
        | Self::Call {
            arguments: pieces, ..
        }) = self;
        pieces.len() as u64
    }
}

impl<'r> Ask<'r> {
    fn wanted_tool(&self) -> Result<Option<(&'r str, &'r Value)>, Refusal> {
        let named = |wanted: &str| self.tools.iter().find(|(name, _)| *name == wanted);
        let tool = match self.choice {
            Choice::None => None,
            Choice::Any => self.tools.first(),
            Choice::Named(name) => Some(named(name).ok_or_else(|| {
                Refusal::invalid(format!("tool_choice: there is no tool {name:?}"))
            })?),
            Choice::Free => self.tools.iter().find(|(name, _)| {
                !name.is_empty() && self.last_texts.iter().any(|text| text.contains(name))
            }),
        };
        Ok(tool.copied())
    }
}

fn instance(schema: &Value) -> Result<Value, Refusal> {
    schema::instance(schema).map_err(|e| Refusal::invalid(format!("Invalid schema: {e}")))
}

fn pieces(document: &Value) -> Vec<String> {
    let text: Vec<char> = document.to_string().chars().collect();
    text.chunks(PIECE_CHARS)
        .map(|piece| piece.iter().collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(reply: Reply) -> String {
        match reply {
            Reply::Text(pieces) => pieces.concat(),
            Reply::Call { name, arguments } => format!("{name}{}", arguments.concat()),
        }
    }

    #[test]
    fn calls_the_tool_that_is_forced_or_named() {
        let schema =
            json!({"type": "object", "properties": {"n": {"const": 7}}, "required": ["n"]});
        let ask = |choice, last| Ask {
            tools: vec![("first", &Value::Null), ("second", &schema)],
            choice,
            format: None,
            last_texts: vec![last],
        };
        let say = |choice, last| said(Reply::to(&ask(choice, last)).unwrap());
        let sentence = WORDS.concat();
        assert_eq!(say(Choice::Any, "hi"), "first{}");
        assert_eq!(say(Choice::Named("second"), "hi"), "second{\"n\":7}");
        assert_eq!(say(Choice::Free, "use second now"), "second{\"n\":7}");
        assert_eq!(say(Choice::Free, "hi"), sentence);
        assert_eq!(say(Choice::None, "use second now"), sentence);
        assert!(Reply::to(&ask(Choice::Named("third"), "hi")).is_err());
    }

    #[test]
    fn json_comes_in_pieces_that_add_up() {
        let format = json!({"const": {"long": "äöü and more"}});
        let ask = Ask {
            tools: Vec::new(),
            choice: Choice::Free,
            format: Some(format.clone()),
            last_texts: Vec::new(),
        };
        let reply = Reply::to(&ask).unwrap();
        assert!(reply.tokens() > 1);
        assert_eq!(said(reply), format["const"].to_string());
    }
}
