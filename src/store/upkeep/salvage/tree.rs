//! Reads redb's trees page by page, without redb, from a file with damaged pages.
//!
//! This knows as much of redb's format (version 3, its docs/design.md) as it takes to walk from the header to
//! every row. A page that is unreadable or makes no sense costs the rows below it and nothing else. A walk ends
//! whatever the octets are: it visits each page once, and no page is longer than [`PAGE_ORDER_MAX`] allows.

use std::collections::{BTreeMap, HashSet};
use std::io;

use crate::store::index::redb_header::{GOD_BYTE, HEADER_OCTETS, MAGIC, PRIMARY_BIT, SLOTS};

pub const REGION_HEADER_PAGES: usize = 16;
pub const REGION_DATA_PAGES: usize = 20;
pub const PAGE: u64 = 4096;
/// A page has 4 KiB times two to the power of its order. Rows have at most 64 KiB, so a much longer page is
/// damage.
pub const PAGE_ORDER_MAX: u32 = 8;
const DEPTH_MAX: usize = 24;
const LEAF: u8 = 1;
const BRANCH: u8 = 2;
pub const NORMAL_TABLE: u8 = 3;

/// Reads octets of redb's space; fails on damaged ones.
pub type ReadOctets<'a> = &'a dyn Fn(u64, &mut [u8]) -> io::Result<()>;

/// The tables of a redb file, as far as they can be found.
pub struct Trees<'a> {
    read: ReadOctets<'a>,
    region_header_pages: u64,
    region_data_pages: u64,
    pub tables: BTreeMap<Vec<u8>, Tree>,
}

#[derive(Clone, Copy, Default)]
pub struct Tree {
    root: Option<u64>,
    /// Fixed sizes, if they are fixed.
    key_octets: Option<usize>,
    value_octets: Option<usize>,
}

impl<'a> Trees<'a> {
    /// Finds no table if the header or the page listing the tables is unreadable.
    pub fn find(read: ReadOctets<'a>) -> Self {
        let mut trees = Self { read, region_header_pages: 0, region_data_pages: 0, tables: BTreeMap::new() };
        let mut header = [0; HEADER_OCTETS];
        if read(0, &mut header).is_err() || !header.starts_with(MAGIC) {
            return trees;
        }
        trees.region_header_pages = u32_at(&header, REGION_HEADER_PAGES).unwrap_or(0).into();
        trees.region_data_pages = u32_at(&header, REGION_DATA_PAGES).unwrap_or(0).into();
        let primary = usize::from(header[GOD_BYTE] & PRIMARY_BIT);
        // The other slot belongs to the commit before, and may serve if the primary one leads nowhere.
        for slot in [SLOTS[primary], SLOTS[1 - primary]] {
            let root = (header[slot + 1] != 0).then(|| u64_at(&header, slot + 8)).flatten();
            let tree = Tree { root, ..Tree::default() };
            let mut tables = BTreeMap::new();
            trees.walk(&tree, &mut |name, definition| {
                if let Some(table) = Tree::defined_by(definition) {
                    tables.insert(name.to_vec(), table);
                }
            });
            if !tables.is_empty() {
                trees.tables = tables;
                break;
            }
        }
        trees
    }

    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Searches redb's space, of `len` octets, for pages with rows whose keys have this length, and passes the
    /// rows of a page to `each` if `accept` takes all of them. Finds rows that no branch leads to any more,
    /// including deleted ones whose page was not reused.
    pub fn scan(
        &self,
        len: u64,
        key_octets: usize,
        accept: &dyn Fn(&[u8], &[u8]) -> bool,
        each: &mut dyn FnMut(&[u8], &[u8]),
    ) {
        let tree = Tree { key_octets: Some(key_octets), ..Tree::default() };
        for at in (PAGE..len).step_by(PAGE as usize) {
            let mut page = vec![0; PAGE as usize];
            if (self.read)(at, &mut page).is_err() || page[0] != LEAF {
                continue;
            }
            let Some(end) = leaf_end(&page) else { continue };
            if end > page.len() {
                page.resize(end.next_multiple_of(PAGE as usize), 0);
                if (self.read)(at, &mut page).is_err() {
                    continue;
                }
            }
            let mut is_accepted = true;
            let is_whole = leaf(&page, &tree, &mut |key, row| is_accepted &= accept(key, row));
            if is_whole && is_accepted {
                leaf(&page, &tree, each);
            }
        }
    }

    /// Passes every readable row of a table to `each`, as octets and in key order. Returns the number of
    /// unreadable pages, or `None` if the table was not found.
    pub fn rows(&self, table: &str, each: &mut dyn FnMut(&[u8], &[u8])) -> Option<u64> {
        Some(self.walk(self.tables.get(table.as_bytes())?, each))
    }

    fn walk(&self, tree: &Tree, each: &mut dyn FnMut(&[u8], &[u8])) -> u64 {
        let mut damaged = 0;
        let mut visited = HashSet::new();
        let mut waiting: Vec<(u64, usize)> = tree.root.map(|root| (root, 0)).into_iter().collect();
        while let Some((number, depth)) = waiting.pop() {
            if !visited.insert(number) {
                damaged += 1;
                continue;
            }
            let page = self.page(number).unwrap_or_default();
            let is_whole = match page.first() {
                Some(&LEAF) => leaf(&page, tree, each),
                Some(&BRANCH) if depth < DEPTH_MAX => match children(&page) {
                    Some(children) => {
                        waiting.extend(children.into_iter().rev().map(|child| (child, depth + 1)));
                        true
                    }
                    None => false,
                },
                _ => false,
            };
            damaged += u64::from(!is_whole);
        }
        damaged
    }

    fn page(&self, number: u64) -> Option<Vec<u8>> {
        let order = (number >> 59) as u32;
        if order > PAGE_ORDER_MAX {
            return None;
        }
        let index = number & (0xf_ffff >> order);
        let region = number >> 20 & 0xf_ffff;
        let region_octets = (self.region_header_pages + self.region_data_pages) * PAGE;
        let before = region.checked_mul(region_octets)?.checked_add(PAGE)?;
        let at = before.checked_add(self.region_header_pages * PAGE)?.checked_add(index * (PAGE << order))?;
        let mut page = vec![0; (PAGE << order) as usize];
        (self.read)(at, &mut page).ok()?;
        Some(page)
    }
}

impl Tree {
    /// Parses a row of the tree of tables.
    fn defined_by(row: &[u8]) -> Option<Self> {
        if *row.first()? != NORMAL_TABLE {
            return None;
        }
        let optional = |at: usize| -> Option<Option<usize>> {
            Some(if *row.get(at)? != 0 { Some(u32_at(row, at + 1)? as usize) } else { None })
        };
        let root = if *row.get(9)? != 0 { Some(u64_at(row, 10)?) } else { None };
        Some(Self { root, key_octets: optional(42)?, value_octets: optional(47)? })
    }
}

/// False if the page makes no sense from some row on.
fn leaf(page: &[u8], tree: &Tree, each: &mut dyn FnMut(&[u8], &[u8])) -> bool {
    let mut rows = || -> Option<()> {
        let count = u16_at(page, 2)?;
        let key_ends = if tree.key_octets.is_none() { 4 * count } else { 0 };
        let value_ends = if tree.value_octets.is_none() { 4 * count } else { 0 };
        let keys_at = 4 + key_ends + value_ends;
        let key_end = |n: usize| match tree.key_octets {
            Some(octets) => keys_at.checked_add(octets.checked_mul(n + 1)?),
            None => Some(u32_at(page, 4 + 4 * n)? as usize),
        };
        let values_at = key_end(count.checked_sub(1)?)?;
        let value_end = |n: usize| match tree.value_octets {
            Some(octets) => values_at.checked_add(octets.checked_mul(n + 1)?),
            None => Some(u32_at(page, 4 + key_ends + 4 * n)? as usize),
        };
        let (mut key_at, mut value_at) = (keys_at, values_at);
        for n in 0..count {
            let (key_end, value_end) = (key_end(n)?, value_end(n)?);
            each(page.get(key_at..key_end)?, page.get(value_at..value_end)?);
            (key_at, value_at) = (key_end, value_end);
        }
        Some(())
    };
    rows().is_some()
}

/// Where the last row of a leaf ends, for keys of fixed and rows of variable length.
fn leaf_end(page: &[u8]) -> Option<usize> {
    let last = u16_at(page, 2)?.checked_sub(1)?;
    let end = u32_at(page, 4 + 4 * last)? as usize;
    (end <= (PAGE << PAGE_ORDER_MAX) as usize).then_some(end)
}

/// The pages below a branch.
fn children(page: &[u8]) -> Option<Vec<u64>> {
    let count = u16_at(page, 2)? + 1;
    let at = 8 + 16 * count;
    (0..count).map(|n| u64_at(page, at + 8 * n)).collect()
}

fn u16_at(octets: &[u8], at: usize) -> Option<usize> {
    Some(u16::from_le_bytes(octets.get(at..at + 2)?.try_into().ok()?).into())
}

fn u32_at(octets: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(octets.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(octets: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(octets.get(at..at + 8)?.try_into().ok()?))
}
