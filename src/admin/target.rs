//! The target of a request to the admin listener: its path and its query, percent-decoded.

use http::Uri;

use crate::inquiry::Filter;

/// Parameters in the order of the query.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether there are no other parameters, and none twice: a misspelt one would be passed over, and more be done than was
    /// meant.
    ///
    /// # Errors
    /// Which one, in words.
    pub fn only(&self, names: &[&str]) -> Result<(), String> {
        for (index, (name, _)) in self.0.iter().enumerate() {
            if !names.contains(&name.as_str()) {
                return Err(format!("there is no parameter {name}; there are {}", names.join(", ")));
            }
            if self.0.iter().take(index).any(|(earlier, _)| earlier == name) {
                return Err(format!("the parameter {name} is there twice"));
            }
        }
        Ok(())
    }

    /// Which sessions it is about.
    pub fn filter(&self) -> Filter {
        let value = |name| self.get(name).map(str::to_owned);
        Filter { pool: value("pool"), server: value("server"), key: value("key") }
    }
}

/// The segments of the path, and the query. `None` when a part is not percent-encoded UTF-8.
pub fn parse(uri: &Uri) -> Option<(Vec<String>, Query)> {
    let path = uri.path().strip_prefix('/')?.split('/').map(decode).collect::<Option<_>>()?;
    let query = uri.query().unwrap_or_default();
    let parameter = |text: &str| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        Some((decode(name)?, decode(value)?))
    };
    let query = query.split('&').filter(|text| !text.is_empty()).map(parameter).collect::<Option<_>>()?;
    Some((path, Query(query)))
}

/// RFC 3986 section 2.1; a `+` is a plus.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = match first {
            b'%' => {
                let ([high, low], after) = after.split_first_chunk::<2>()?;
                let digit = |digit: &u8| char::from(*digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                (digit(high)? << 4 | digit(low)?, after)
            }
            byte => (*byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(target: &str) -> Option<(Vec<String>, Query)> {
        parse(&target.parse().unwrap())
    }

    #[test]
    fn segments_and_parameters_are_decoded() {
        let (path, query) = parsed("/v1/servers/a%2Fb/c+d/drain?key=%c3%bc%20+&pool=app&&all").unwrap();
        assert_eq!(path, ["v1", "servers", "a/b", "c+d", "drain"]);
        assert_eq!((query.get("key"), query.get("pool"), query.get("all")), (Some("ü +"), Some("app"), Some("")));
        assert_eq!(query.get("server"), None);
        assert_eq!(query.filter().key.as_deref(), Some("ü +"));
    }

    #[test]
    fn what_is_not_percent_encoded_utf8_is_refused() {
        for target in ["/%", "/%4", "/%zz", "/%ff", "/?key=%c3"] {
            assert_eq!(parsed(target), None, "{target}");
        }
    }

    #[test]
    fn unknown_and_doubled_parameters_are_told() {
        let only = |target| parsed(target).unwrap().1.only(&["pool", "limit"]);
        assert_eq!(only("/?pool=a&limit=1"), Ok(()));
        assert_eq!(only("/?pol=a"), Err("there is no parameter pol; there are pool, limit".to_owned()));
        assert_eq!(only("/?pool=a&pool=b"), Err("the parameter pool is there twice".to_owned()));
    }
}
