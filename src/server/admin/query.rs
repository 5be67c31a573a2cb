//! The query of a list: `filter`, `after`, `limit`, `basin`.

use super::api::Refused;
use crate::{proxy::query::decode, store::Page, stream::BasinName};

/// Rows of a page where nothing else is asked for, and at most.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// Which part of which list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ListQuery {
    pub(super) page: Page,
    pub(super) basin: Option<BasinName>,
}

impl ListQuery {
    /// Reads a query string. A parameter that does not exist is a mistake: it would be a list of
    /// something else than was asked for.
    pub(super) fn parse(query: Option<&str>) -> Result<Self, Refused> {
        let (mut filter, mut after, mut limit, mut basin) = (None, None, None, None);
        let pairs = query.unwrap_or_default().split('&');
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name);
            let slot = match &*name {
                "filter" => &mut filter,
                "after" => &mut after,
                "limit" => &mut limit,
                "basin" => &mut basin,
                _ => {
                    let why = "unknown parameter; there are filter, after, limit and basin";
                    return Err(Refused::invalid(why));
                }
            };
            if slot.replace(decode(value)).is_some() {
                return Err(Refused::invalid(format!("{name}: given twice")));
            }
        }
        let limit = match limit.as_deref().map(str::parse) {
            None => DEFAULT_LIMIT,
            Some(Ok(limit)) if (1..=MAX_LIMIT).contains(&limit) => limit,
            Some(_) => {
                let why = format!("limit: must be a number from 1 to {MAX_LIMIT}");
                return Err(Refused::invalid(why));
            }
        };
        let basin = basin.filter(|basin| !basin.is_empty());
        let basin = basin.map(|basin| basin.parse()).transpose();
        Ok(Self {
            page: Page {
                after: after.unwrap_or_default(),
                filter: filter.unwrap_or_default(),
                limit,
            },
            basin: basin.map_err(|error| Refused::invalid(format!("basin: {error}")))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_which_page() {
        let parse = |query| ListQuery::parse(Some(query)).ok().unwrap();
        let none = ListQuery::parse(None).ok().unwrap();
        assert_eq!((none.page.limit, none.basin), (100, None));
        let all = parse("filter=a%20b%2Bc+d&after=x%2Fy&limit=7&basin=test-basin&");
        assert_eq!((&*all.page.filter, &*all.page.after), ("a b+c d", "x/y"));
        assert_eq!(all.page.limit, 7);
        assert_eq!(all.basin.unwrap().as_str(), "test-basin");
        assert_eq!(parse("basin=").basin, None);
    }

    #[test]
    fn mistakes_are_not_another_list() {
        for query in [
            "limit=0",
            "limit=1001",
            "limit=-1",
            "limit=",
            "fliter=x",
            "filter=a&filter=b",
            "basin=x",
        ] {
            assert!(ListQuery::parse(Some(query)).is_err(), "{query}");
        }
    }
}
