//! What a template wants `content` to be: a string, or the list of parts that clients send.
//!
//! The rule is that of vLLM: a template that loops over the content of a message from `messages`
//! gets the list. Names are followed through `set`, filters, tests and slices, not through macro
//! arguments; `content_format` in the configuration overrides the guess.

use std::collections::BTreeSet;

use minijinja::machinery::{ast, parse};
use minijinja::syntax::SyntaxConfig;
use schemars::JsonSchema;
use serde::Deserialize;

/// What `content` is given as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContentFormat {
    /// One string; several parts are joined by a line feed.
    #[default]
    String,
    /// The list of parts, as in the request.
    Openai,
}

/// The format that `source` wants; [`ContentFormat::String`] where it does not say.
pub(super) fn detect(source: &str) -> ContentFormat {
    let source = super::environment::without_generation_tags(source);
    let Ok(tree) = parse(&source, super::environment::NAME, SyntaxConfig::default()) else {
        return ContentFormat::String;
    };
    let mut seen = Seen::default();
    seen.statement(&tree);

    let mut lists = BTreeSet::from(["messages"]);
    loop {
        let more: Vec<&str> = seen
            .assignments
            .iter()
            .filter(|(name, value)| {
                !lists.contains(name) && lists.iter().any(|list| is_list(value, list, None))
            })
            .map(|(name, _)| *name)
            .collect();
        if more.is_empty() {
            break;
        }
        lists.extend(more);
    }
    let loops_over_content = seen.loops.iter().any(|(message, iterated)| {
        lists.iter().any(|list| is_list(iterated, list, None))
            && seen
                .loops
                .iter()
                .any(|(_, iterated)| is_list(iterated, message, Some("content")))
    });
    if loops_over_content {
        ContentFormat::Openai
    } else {
        ContentFormat::String
    }
}

/// All assignments to a name and all loops with a name, anywhere in a template.
#[derive(Default)]
struct Seen<'t> {
    assignments: Vec<(&'t str, &'t ast::Expr<'t>)>,
    loops: Vec<(&'t str, &'t ast::Expr<'t>)>,
}

impl<'t> Seen<'t> {
    fn statements(&mut self, statements: &'t [ast::Stmt<'t>]) {
        for statement in statements {
            self.statement(statement);
        }
    }

    // The parser bounds the depth.
    fn statement(&mut self, statement: &'t ast::Stmt<'t>) {
        match statement {
            ast::Stmt::Template(template) => self.statements(&template.children),
            ast::Stmt::ForLoop(a_loop) => {
                if let ast::Expr::Var(name) = &a_loop.target {
                    self.loops.push((name.id, &a_loop.iter));
                }
                self.statements(&a_loop.body);
                self.statements(&a_loop.else_body);
            }
            ast::Stmt::IfCond(condition) => {
                self.statements(&condition.true_body);
                self.statements(&condition.false_body);
            }
            ast::Stmt::WithBlock(block) => self.statements(&block.body),
            ast::Stmt::Set(set) => {
                if let ast::Expr::Var(name) = &set.target {
                    self.assignments.push((name.id, &set.expr));
                }
            }
            ast::Stmt::SetBlock(block) => self.statements(&block.body),
            ast::Stmt::AutoEscape(block) => self.statements(&block.body),
            ast::Stmt::FilterBlock(block) => self.statements(&block.body),
            ast::Stmt::Macro(a_macro) => self.statements(&a_macro.body),
            ast::Stmt::CallBlock(block) => self.statements(&block.macro_decl.body),
            _ => {}
        }
    }
}

/// Whether `expr` is the variable `name` (or its member `key`), or its items filtered or sliced.
fn is_list(expr: &ast::Expr<'_>, name: &str, key: Option<&str>) -> bool {
    match (expr, key) {
        (ast::Expr::Filter(filter), _) => filter
            .expr
            .as_ref()
            .is_some_and(|inner| is_list(inner, name, key)),
        (ast::Expr::Test(test), _) => is_list(&test.expr, name, key),
        (ast::Expr::Slice(slice), _) => is_list(&slice.expr, name, key),
        (ast::Expr::Var(variable), None) => variable.id == name,
        (ast::Expr::GetAttr(access), Some(key)) => {
            access.name == key && is_variable(&access.expr, name)
        }
        (ast::Expr::GetItem(access), Some(key)) => {
            is_variable(&access.expr, name)
                && access
                    .subscript_expr
                    .as_const()
                    .is_some_and(|subscript| subscript.as_str() == Some(key))
        }
        _ => false,
    }
}

fn is_variable(expr: &ast::Expr<'_>, name: &str) -> bool {
    matches!(expr, ast::Expr::Var(variable) if variable.id == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_over_content_wants_the_list() {
        let table = [
            (
                "{% for m in messages %}{{ m.content }}{% endfor %}",
                ContentFormat::String,
            ),
            (
                "{% for m in messages %}{% for c in m.content %}{{ c }}{% endfor %}{% endfor %}",
                ContentFormat::Openai,
            ),
            (
                "{% for m in messages %}{% if m['content'] is string %}a{% else %}\
                 {% for c in m['content'] %}{{ c.text }}{% endfor %}{% endif %}{% endfor %}",
                ContentFormat::Openai,
            ),
            (
                "{% set rest = messages[1:] %}{% for m in rest %}\
                 {% for c in m['content'] | selectattr('type', 'equalto', 'text') %}{{ c }}\
                 {% endfor %}{% endfor %}",
                ContentFormat::Openai,
            ),
            (
                "{% for t in tools %}{% for c in t.content %}{{ c }}{% endfor %}{% endfor %}",
                ContentFormat::String,
            ),
            (
                "{% macro show(content) %}{% for c in content %}{{ c }}{% endfor %}{% endmacro %}\
                 {% for m in messages %}{{ show(m.content) }}{% endfor %}",
                ContentFormat::String,
            ),
            (
                "{% for m in messages %}{% for c in m.content %}{% generation %}{{ c }}\
                 {% endgeneration %}{% endfor %}{% endfor %}",
                ContentFormat::Openai,
            ),
            ("{% for", ContentFormat::String),
        ];
        for (source, format) in table {
            assert_eq!(detect(source), format, "{source}");
        }
    }
}
