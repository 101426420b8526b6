//! The paths of the routes of one host, as a tree of segments: a look-up takes one step for each segment of a path, and ends
//! where no route goes on. An expression lies where the segments end that every path has which it matches: among a thousand
//! that begin otherwise it is not tried.

use std::collections::HashMap;

use regex::bytes::Regex;

use super::path;
use crate::config::{PathMatch, expression, expression_prefix};

/// Routes by path. A route is its rank: the smaller, the earlier it is tried. Lists are ascending.
#[derive(Debug, Clone, Default)]
pub(super) struct Paths {
    root: Segment,
    /// Those that match any path.
    any: Vec<usize>,
}

#[derive(Debug, Clone, Default)]
struct Segment {
    below: HashMap<Box<[u8]>, Segment>,
    /// Routes whose prefix ends here.
    prefix: Vec<usize>,
    /// Routes whose path ends here.
    exact: Vec<usize>,
    /// Routes whose expression matches no path but some that come by here.
    expressions: Vec<(usize, Regex)>,
}

impl Paths {
    /// Adds a route, which is tried after those that were added before.
    pub(super) fn add(&mut self, rank: usize, matched: &PathMatch) {
        match matched {
            PathMatch::Any => self.any.push(rank),
            PathMatch::Exact(written) => self.root.at(written).exact.push(rank),
            PathMatch::Prefix(written) => self.root.at(written).prefix.push(rank),
            // The configuration was checked, so that it compiles.
            PathMatch::Regex(written) => {
                let expressions = &mut self.root.at_whole(&expression_prefix(written)).expressions;
                expressions.extend(expression(written).map(|regex| (rank, regex)));
            }
        }
    }

    /// Lowers `best` to the first route that matches and for which `holds`, if that comes earlier.
    pub(super) fn first(&self, path: Option<&[u8]>, best: &mut usize, holds: &mut impl FnMut(usize) -> bool) {
        if let Some(path) = path {
            self.root.first(path, best, holds);
        }
        lower(&self.any, best, holds);
    }
}

impl Segment {
    /// The end of a path of the configuration.
    fn at(&mut self, written: &str) -> &mut Segment {
        let mut buffers = path::Buffers::default();
        // What cannot be read was refused by the check, and no request is like it.
        let read = path::read(written, &mut buffers).map_or(written.as_bytes(), |reading| reading.path);
        let segments = read.split(|byte| *byte == b'/').skip(1);
        segments.fold(self, |node, segment| node.below.entry(segment.into()).or_default())
    }

    /// Where the whole segments end that paths with this beginning have: what follows its last slash may be a part of one.
    fn at_whole(&mut self, prefix: &[u8]) -> &mut Segment {
        let Some(prefix) = prefix.strip_prefix(b"/") else { return self };
        let whole = prefix.iter().rposition(|byte| *byte == b'/').and_then(|slash| prefix.get(..slash));
        let segments = whole.into_iter().flat_map(|whole| whole.split(|byte| *byte == b'/'));
        segments.fold(self, |node, segment| node.below.entry(segment.into()).or_default())
    }

    fn first(&self, path: &[u8], best: &mut usize, holds: &mut impl FnMut(usize) -> bool) {
        let mut node = self;
        let mut segments = path.split(|byte| *byte == b'/').skip(1);
        loop {
            lower(&node.prefix, best, holds);
            let mut earlier = node.expressions.iter().take_while(|(rank, _)| *rank < *best);
            if let Some((rank, _)) = earlier.find(|(rank, regex)| regex.is_match(path) && holds(*rank)) {
                *best = *rank;
            }
            let Some(segment) = segments.next() else {
                return lower(&node.exact, best, holds);
            };
            if node.below.is_empty() {
                return;
            }
            let Some(next) = node.below.get(segment) else { return };
            node = next;
        }
    }
}

fn lower(ranks: &[usize], best: &mut usize, holds: &mut impl FnMut(usize) -> bool) {
    if let Some(rank) = ranks.iter().take_while(|rank| **rank < *best).find(|rank| holds(**rank)) {
        *best = *rank;
    }
}
