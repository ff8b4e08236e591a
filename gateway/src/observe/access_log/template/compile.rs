//! From words to what is written: everything that can be wrong with a template is found here.

use super::fields::{Field, Kind};
use super::format::Format;
use super::lex::{Part, Token, split};
use super::{BadTemplate, DEPTH_MAX, FIELDS_MAX, NAME_MAX, NODES_MAX, Template};

/// A step of writing a line.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Text(Box<str>),
    Write(Expr),
    /// The first branch whose condition holds.
    If {
        branches: Vec<(Expr, Vec<Node>)>,
        otherwise: Vec<Node>,
    },
}

/// What has a value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expr {
    Text(Box<str>),
    Int(i64),
    Float(f64),
    Bool(bool),
    Field(Field),
    /// The values of a header field; the first of them.
    Headers(Box<str>),
    Header(Box<str>),
    /// One of a list, by its place from 0 on.
    At(Box<Expr>, usize),
    Printf(Format, Vec<Expr>),
    Call(Function, Vec<Expr>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Js,
    Html,
    UrlQuery,
    Len,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    And,
    Or,
    Not,
}

const FUNCTIONS: [(&str, Function); 13] = [
    ("js", Function::Js),
    ("html", Function::Html),
    ("urlquery", Function::UrlQuery),
    ("len", Function::Len),
    ("eq", Function::Eq),
    ("ne", Function::Ne),
    ("lt", Function::Lt),
    ("le", Function::Le),
    ("gt", Function::Gt),
    ("ge", Function::Ge),
    ("and", Function::And),
    ("or", Function::Or),
    ("not", Function::Not),
];

const HEADER: &str = "Request.Header";

impl Expr {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Expr::Text(_) | Expr::Header(_) | Expr::At(..) | Expr::Printf(..) => Kind::Text,
            Expr::Int(_) => Kind::Int,
            Expr::Float(_) => Kind::Float,
            Expr::Bool(_) => Kind::Bool,
            Expr::Field(field) => field.kind(),
            Expr::Headers(_) => Kind::List,
            Expr::Call(function, arguments) => match function {
                Function::Js | Function::Html | Function::UrlQuery => Kind::Text,
                Function::Len => Kind::Int,
                // Alike in all of them.
                Function::And | Function::Or => arguments.first().map_or(Kind::Bool, Expr::kind),
                _ => Kind::Bool,
            },
        }
    }
}

/// Reads a whole template.
pub(super) fn template(text: &str) -> Result<Template, BadTemplate> {
    let mut compiler = Compiler {
        parts: split(text)?.into_iter(),
        names: Vec::new(),
        nodes: 0,
    };
    match compiler.nodes(0)? {
        (nodes, Stop::Finished) => Ok(Template {
            nodes,
            names: compiler.names,
        }),
        (_, Stop::End) => Err(BadTemplate::new("an end without an if")),
        (_, Stop::Else | Stop::ElseIf(_)) => Err(BadTemplate::new("an else without an if")),
    }
}

struct Compiler<'a> {
    parts: std::vec::IntoIter<Part<'a>>,
    names: Vec<Box<str>>,
    nodes: usize,
}

/// What a row of nodes ends with.
enum Stop {
    Finished,
    End,
    Else,
    ElseIf(Expr),
}

/// The words of an action that are still to be read.
type Words<'w, 'a> = std::iter::Peekable<std::slice::Iter<'w, Token<'a>>>;

/// What functions are given.
enum Operand {
    Expr(Expr),
    /// All header fields, which only `index` can do something with.
    AllHeaders,
}

impl Compiler<'_> {
    fn nodes(&mut self, depth: usize) -> Result<(Vec<Node>, Stop), BadTemplate> {
        check_depth(depth)?;
        let mut nodes = Vec::new();
        while let Some(part) = self.parts.next() {
            self.count()?;
            let tokens = match part {
                Part::Text(text) => {
                    nodes.push(Node::Text(text.into()));
                    continue;
                }
                Part::Action(tokens) => tokens,
            };
            match tokens.as_slice() {
                [Token::Word("end")] => return Ok((nodes, Stop::End)),
                [Token::Word("else")] => return Ok((nodes, Stop::Else)),
                [Token::Word("else"), Token::Word("if"), condition @ ..] => {
                    return Ok((nodes, Stop::ElseIf(self.whole(condition)?)));
                }
                [Token::Word("if"), condition @ ..] => {
                    let condition = self.whole(condition)?;
                    nodes.push(self.branches(condition, depth)?);
                }
                words => nodes.push(Node::Write(self.whole(words)?)),
            }
        }
        Ok((nodes, Stop::Finished))
    }

    /// The rest of an `if`.
    fn branches(&mut self, condition: Expr, depth: usize) -> Result<Node, BadTemplate> {
        let mut branches = Vec::new();
        let mut condition = condition;
        // Every turn takes an action.
        loop {
            let (nodes, stop) = self.nodes(depth + 1)?;
            branches.push((condition, nodes));
            let otherwise = match stop {
                Stop::ElseIf(next) => {
                    condition = next;
                    continue;
                }
                Stop::End => Vec::new(),
                Stop::Else => match self.nodes(depth + 1)? {
                    (otherwise, Stop::End) => otherwise,
                    _ => return Err(BadTemplate::new("an else has no end")),
                },
                Stop::Finished => return Err(BadTemplate::new("an if has no end")),
            };
            return Ok(Node::If {
                branches,
                otherwise,
            });
        }
    }

    /// A pipeline and nothing behind it.
    fn whole(&mut self, tokens: &[Token<'_>]) -> Result<Expr, BadTemplate> {
        let mut words = tokens.iter().peekable();
        let expr = self.pipeline(&mut words, 0)?;
        match words.next() {
            None => Ok(expr),
            Some(_) => Err(BadTemplate::new("a ) without a (")),
        }
    }

    fn pipeline(&mut self, words: &mut Words<'_, '_>, depth: usize) -> Result<Expr, BadTemplate> {
        check_depth(depth)?;
        let mut expr = self.command(words, None, depth)?;
        while words.next_if(|token| **token == Token::Pipe).is_some() {
            expr = self.command(words, Some(expr), depth)?;
        }
        Ok(expr)
    }

    /// A function and what it is given, or a value; `piped` is its last argument.
    fn command(
        &mut self,
        words: &mut Words<'_, '_>,
        piped: Option<Expr>,
        depth: usize,
    ) -> Result<Expr, BadTemplate> {
        self.count()?;
        let name = match words.peek() {
            Some(Token::Word(name)) if !matches!(*name, "true" | "false") => Some(*name),
            Some(Token::Field(name) | Token::Root(name)) if is_method(name) => Some(*name),
            _ => None,
        };
        if name.is_some() {
            words.next();
        }
        let mut operands = Vec::new();
        while let Some(token) = words.peek()
            && !matches!(token, Token::Pipe | Token::Close(_))
        {
            operands.push(self.operand(words, depth)?);
        }
        operands.extend(piped.map(Operand::Expr));
        match name {
            Some(name) => self.call(name, operands),
            None => match (operands.pop(), operands.len()) {
                (Some(Operand::Expr(expr)), 0) => Ok(expr),
                (Some(Operand::AllHeaders), 0) => Err(BadTemplate::new(
                    "header fields are read one by one: write index .Request.Header \"NAME\"",
                )),
                (Some(_), _) => Err(BadTemplate::new("only functions take arguments")),
                (None, _) => Err(BadTemplate::new("there is nothing to write")),
            },
        }
    }

    fn operand(&mut self, words: &mut Words<'_, '_>, depth: usize) -> Result<Operand, BadTemplate> {
        self.count()?;
        let token = words.next();
        Ok(Operand::Expr(match token {
            Some(Token::Text(text)) => Expr::Text(text.as_ref().into()),
            Some(Token::Number(number)) => number_of(number)?,
            Some(Token::Word("true")) => Expr::Bool(true),
            Some(Token::Word("false")) => Expr::Bool(false),
            Some(Token::Field(HEADER) | Token::Root(HEADER)) => return Ok(Operand::AllHeaders),
            Some(Token::Field(name) | Token::Root(name)) => self.field(name)?,
            Some(Token::Open) => {
                let expr = self.pipeline(words, depth + 1)?;
                match words.next() {
                    Some(Token::Close("")) => expr,
                    Some(Token::Close(field)) => {
                        return Err(BadTemplate::near("such a value has no fields", field));
                    }
                    _ => return Err(BadTemplate::new("a ( without a )")),
                }
            }
            Some(Token::Word(word)) => return Err(BadTemplate::near("it is not known here", word)),
            Some(Token::Pipe | Token::Close(_)) | None => {
                return Err(BadTemplate::new("a value is missing"));
            }
        }))
    }

    fn field(&mut self, name: &str) -> Result<Expr, BadTemplate> {
        let unknown = || BadTemplate::near("there is no such field", name);
        let field = Field::named(name).ok_or_else(unknown)?;
        for name in field.headers() {
            self.asks_for(name)?;
        }
        Ok(Expr::Field(field))
    }

    fn call(&mut self, name: &str, operands: Vec<Operand>) -> Result<Expr, BadTemplate> {
        let known = FUNCTIONS.iter().find(|(known, _)| *known == name);
        if known.is_none() && !matches!(name, "index" | "printf") && !is_method(name) {
            return Err(BadTemplate::near("it is not known here", name));
        }
        if name == "index" {
            return self.index(operands);
        }
        let arguments = only_exprs(operands)?;
        if is_method(name) {
            let [Expr::Text(header)] = arguments.as_slice() else {
                return Err(BadTemplate::near(
                    "write the name of one header field behind",
                    name,
                ));
            };
            let header = self.asks_for(header)?;
            return Ok(match name.ends_with(".Get") {
                true => Expr::Header(header),
                false => Expr::Headers(header),
            });
        }
        if name == "printf" {
            let Some((Expr::Text(format), values)) = arguments.split_first() else {
                return Err(BadTemplate::new("printf begins with a text that says how"));
            };
            let kinds: Vec<_> = values.iter().map(Expr::kind).collect();
            return Ok(Expr::Printf(
                Format::parse(format, &kinds)?,
                values.to_vec(),
            ));
        }
        let Some((_, function)) = known.copied() else {
            return Err(BadTemplate::near("it is not known here", name));
        };
        check(function, name, &arguments)?;
        Ok(Expr::Call(function, arguments))
    }

    /// `index .Request.Header "NAME"`, and `index LIST 0`.
    fn index(&mut self, operands: Vec<Operand>) -> Result<Expr, BadTemplate> {
        let how = "write index .Request.Header \"NAME\", perhaps with a number behind it";
        let mut operands = operands.into_iter();
        let list = match operands.next() {
            Some(Operand::AllHeaders) => match operands.next() {
                Some(Operand::Expr(Expr::Text(name))) => Expr::Headers(self.asks_for(&name)?),
                _ => return Err(BadTemplate::new(how)),
            },
            Some(Operand::Expr(list)) if list.kind() == Kind::List => list,
            _ => return Err(BadTemplate::new(how)),
        };
        let place = match operands.next() {
            None => return Ok(list),
            Some(Operand::Expr(Expr::Int(place))) => usize::try_from(place).ok(),
            Some(_) => None,
        };
        match (place, operands.next()) {
            (Some(place), None) => Ok(Expr::At(Box::new(list), place)),
            _ => Err(BadTemplate::new(how)),
        }
    }

    /// Notes that a header field is needed; its name in lower case.
    fn asks_for(&mut self, name: &str) -> Result<Box<str>, BadTemplate> {
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(is_token) {
            return Err(BadTemplate::near("no header field is called that", name));
        }
        let name: Box<str> = name.to_ascii_lowercase().into();
        if !self.names.contains(&name) {
            if self.names.len() == FIELDS_MAX {
                let problem = format!("it looks at more than {FIELDS_MAX} header fields");
                return Err(BadTemplate::new(problem));
            }
            self.names.push(name.clone());
        }
        Ok(name)
    }

    fn count(&mut self) -> Result<(), BadTemplate> {
        self.nodes += 1;
        match self.nodes > NODES_MAX {
            true => Err(BadTemplate::new(format!(
                "it has more than {NODES_MAX} parts"
            ))),
            false => Ok(()),
        }
    }
}

fn is_method(name: &str) -> bool {
    matches!(name, "Request.Header.Get" | "Request.Header.Values")
}

fn only_exprs(operands: Vec<Operand>) -> Result<Vec<Expr>, BadTemplate> {
    let exprs = operands.into_iter().map(|operand| match operand {
        Operand::Expr(expr) => Ok(expr),
        Operand::AllHeaders => Err(BadTemplate::new("only index takes .Request.Header")),
    });
    exprs.collect()
}

fn check_depth(depth: usize) -> Result<(), BadTemplate> {
    match depth > DEPTH_MAX {
        true => Err(BadTemplate::new(format!(
            "more than {DEPTH_MAX} parts within each other"
        ))),
        false => Ok(()),
    }
}

fn number_of(text: &str) -> Result<Expr, BadTemplate> {
    if let Ok(int) = text.parse() {
        return Ok(Expr::Int(int));
    }
    let float = text.parse().ok().filter(|float: &f64| float.is_finite());
    let float = float.map(Expr::Float);
    float.ok_or_else(|| BadTemplate::near("this is no number", text))
}

/// Whether a function can do something with what it is given.
fn check(function: Function, name: &str, arguments: &[Expr]) -> Result<(), BadTemplate> {
    let first = arguments.first().map(Expr::kind);
    let alike = arguments
        .iter()
        .all(|argument| Some(argument.kind()) == first);
    let works = match function {
        Function::Js | Function::Html | Function::UrlQuery | Function::Not => arguments.len() == 1,
        Function::Len => arguments.len() == 1 && matches!(first, Some(Kind::Text | Kind::List)),
        Function::Eq => arguments.len() >= 2 && alike && first != Some(Kind::List),
        Function::Ne => arguments.len() == 2 && alike && first != Some(Kind::List),
        Function::Lt | Function::Le | Function::Gt | Function::Ge => {
            let ordered = !matches!(first, Some(Kind::List | Kind::Bool));
            arguments.len() == 2 && alike && ordered
        }
        Function::And | Function::Or => !arguments.is_empty() && alike,
    };
    match works {
        true => Ok(()),
        false => Err(BadTemplate(format!(
            "{name} does not take these arguments: too few, too many, or of different types"
        ))),
    }
}
