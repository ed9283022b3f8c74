//! A filter as what to look up, before it is known in which index.

use crate::grams::GRAM_BYTES;
use crate::options::Types;
use crate::pattern::{self, Needed};
use crate::terms::{self, DOCUMENT_KEY, Term};
use model::{Comparison, DocumentTest, Filter, MetadataTest, Scalar, limits};
use query::FilterError;
use std::ops::Range;

/// A filter, prepared once for all indexes of a collection. It holds what to look up and no bytes of any index.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) root: Node,
    pub(crate) leaves: Vec<Leaf>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    /// What satisfies it satisfies this, so that it must be verified.
    AtMost(Box<Node>),
    /// A number among the leaves.
    Leaf(usize),
}

/// One look-up.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Leaf {
    /// The rows of the metadata terms in these bounds.
    Terms {
        bounds: Vec<Range<Vec<u8>>>,
        /// Whether who has one surely satisfies the test.
        exact: bool,
        key: String,
        /// The types of values that satisfy the test.
        types: Types,
    },
    /// The rows with a document.
    Documents,
    /// The rows whose documents have these bytes, of which there is at least one.
    Needle {
        bytes: Vec<u8>,
        /// Whether positions of grams are worth reading.
        exact: bool,
    },
}

impl Plan {
    /// Prepares `filter`. Errors: a regular expression is none. Cost: linear in the filter, regular expressions parsed.
    pub fn compile(filter: &Filter) -> Result<Self, FilterError> {
        let mut compiler = Compiler { leaves: Vec::new() };
        let root = compiler.filter(filter)?;
        Ok(Plan { root, leaves: compiler.leaves })
    }
}

struct Compiler {
    leaves: Vec<Leaf>,
}

const NOTHING: Node = Node::Any(Vec::new());
const EVERYTHING: Node = Node::All(Vec::new());

fn not(node: Node) -> Node {
    Node::Not(Box::new(node))
}

fn at_most(node: Node) -> Node {
    Node::AtMost(Box::new(node))
}

impl Compiler {
    fn leaf(&mut self, leaf: Leaf) -> Node {
        let known = self.leaves.iter().position(|other| *other == leaf);
        Node::Leaf(known.unwrap_or_else(|| {
            self.leaves.push(leaf);
            self.leaves.len() - 1
        }))
    }

    fn filter(&mut self, filter: &Filter) -> Result<Node, FilterError> {
        Ok(match filter {
            Filter::And(filters) => Node::All(filters.iter().map(|f| self.filter(f)).collect::<Result<_, _>>()?),
            Filter::Or(filters) => Node::Any(filters.iter().map(|f| self.filter(f)).collect::<Result<_, _>>()?),
            Filter::Metadata { key, test } if key == DOCUMENT_KEY => self.document_value(test),
            Filter::Metadata { key, test } => self.metadata(key, test),
            Filter::Document(DocumentTest::Contains(text)) => self.needle(text.as_bytes(), true),
            Filter::Document(DocumentTest::NotContains(text)) => not(self.needle(text.as_bytes(), true)),
            Filter::Document(DocumentTest::Regex(pattern)) => self.pattern(pattern)?,
            Filter::Document(DocumentTest::NotRegex(pattern)) => not(self.pattern(pattern)?),
        })
    }

    fn metadata(&mut self, key: &str, test: &MetadataTest) -> Node {
        match test {
            MetadataTest::Compare(Comparison::Eq, operand) => self.one_of(key, [operand]),
            MetadataTest::Compare(Comparison::Ne, operand) => not(self.one_of(key, [operand])),
            MetadataTest::Compare(comparison, operand) => self.ordered(key, *comparison, operand),
            MetadataTest::In(operands) => self.one_of(key, operands),
            MetadataTest::NotIn(operands) => not(self.one_of(key, operands)),
            MetadataTest::Contains(element) => self.element(key, element),
            MetadataTest::NotContains(element) => not(self.element(key, element)),
        }
    }

    fn one_of<'a>(&mut self, key: &str, operands: impl IntoIterator<Item = &'a Scalar> + Clone) -> Node {
        let terms = operands.clone().into_iter().filter_map(|operand| terms::equal_to(key, operand));
        let types = operands.into_iter().map(comparable).fold(Types::NONE, Types::or);
        self.terms(key, terms.collect(), types)
    }

    fn element(&mut self, key: &str, element: &Scalar) -> Node {
        if key == terms::URI_KEY {
            return NOTHING; // it is no array
        }
        let types = match element {
            Scalar::Int(_) => Types { int: true, ..Types::NONE },
            Scalar::Float(_) => Types { float: true, ..Types::NONE },
            other => comparable(other),
        };
        self.terms(key, terms::with_element(key, element).into_iter().collect(), types)
    }

    fn terms(&mut self, key: &str, mut terms: Vec<Term>, types: Types) -> Node {
        terms.sort_unstable();
        terms.dedup();
        let exact = terms.iter().all(|term| term.exact);
        let only = |term: Term| {
            let behind = [&term.bytes[..], &[0]].concat();
            term.bytes..behind
        };
        self.leaf(Leaf::Terms { bounds: terms.into_iter().map(only).collect(), exact, key: key.to_owned(), types })
    }

    fn ordered(&mut self, key: &str, comparison: Comparison, operand: &Scalar) -> Node {
        let Some(bounds) = terms::number_bounds(key, operand) else { return NOTHING };
        let range = match comparison {
            Comparison::Gt => bounds.above,
            Comparison::Gte => bounds.from,
            Comparison::Lt => bounds.below,
            Comparison::Lte => bounds.up_to,
            Comparison::Eq | Comparison::Ne => unreachable!("they are no orders"),
        };
        let (key, types) = (key.to_owned(), comparable(operand));
        self.leaf(Leaf::Terms { bounds: vec![range], exact: bounds.exact, key, types })
    }

    /// A test of the whole document as a value: who equals a text contains it.
    fn document_value(&mut self, test: &MetadataTest) -> Node {
        let mut equal = |operand: &Scalar| match operand {
            Scalar::Str(text) => at_most(self.needle(text.as_bytes(), false)),
            _ => NOTHING,
        };
        match test {
            MetadataTest::Compare(Comparison::Eq, operand) => equal(operand),
            MetadataTest::Compare(Comparison::Ne, operand) => not(equal(operand)),
            MetadataTest::In(operands) => Node::Any(operands.iter().map(equal).collect()),
            MetadataTest::NotIn(operands) => not(Node::Any(operands.iter().map(equal).collect())),
            MetadataTest::Compare(..) | MetadataTest::Contains(_) => NOTHING,
            MetadataTest::NotContains(_) => EVERYTHING,
        }
    }

    fn needle(&mut self, text: &[u8], exact: bool) -> Node {
        let head = &text[..text.len().min(limits::TEXT_NEEDLE_BYTES_MAX)];
        let exact = exact && head.len() == text.len();
        let leaf = match head {
            [] => Leaf::Documents,
            // One gram has no neighbours whose places would matter.
            _ => Leaf::Needle { bytes: head.to_vec(), exact: exact || head.len() <= GRAM_BYTES },
        };
        let node = self.leaf(leaf);
        if head.len() == text.len() { node } else { at_most(node) }
    }

    fn pattern(&mut self, pattern: &str) -> Result<Node, FilterError> {
        let needed = pattern::needed(pattern).map_err(FilterError::Syntax)?;
        let documents = self.leaf(Leaf::Documents);
        Ok(at_most(Node::All(vec![documents, self.needed(&needed)])))
    }

    fn needed(&mut self, needed: &Needed) -> Node {
        match needed {
            Needed::Anything => EVERYTHING,
            Needed::Has(text) => self.needle(text, false),
            Needed::All(list) => Node::All(list.iter().map(|needed| self.needed(needed)).collect()),
            Needed::Any(list) => Node::Any(list.iter().map(|needed| self.needed(needed)).collect()),
        }
    }
}

/// The types of values that can equal `operand`.
fn comparable(operand: &Scalar) -> Types {
    match operand {
        Scalar::Bool(_) => Types { bool: true, ..Types::NONE },
        Scalar::Int(_) | Scalar::Float(_) => Types { int: true, float: true, ..Types::NONE },
        Scalar::Str(_) => Types { string: true, ..Types::NONE },
    }
}
