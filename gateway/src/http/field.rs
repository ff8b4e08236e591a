//! Header fields: the head's bytes as they came, and an index over them.

/// A range of a head's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    /// # Panics
    /// Never for heads: they are bounded far below 4 GiB when they are read.
    #[must_use]
    pub fn new(start: usize, end: usize) -> Span {
        let narrow = |n| u32::try_from(n).expect("a head is smaller than 4 GiB");
        Span {
            start: narrow(start),
            end: narrow(end),
        }
    }

    #[must_use]
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.end as usize]
    }

    #[must_use]
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

macro_rules! known {
    ($($variant:ident = $name:literal),* $(,)?) => {
        /// The names the gateway itself looks for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Name {
            $($variant,)*
            /// What parts of Knative tell each other.
            Control,
            XForwardedClientCert,
            /// Looks like a field that speaks for the client or for Knative to whoever takes `_` for
            /// `-`, as CGI and all that follow it do.
            Lookalike,
            Other,
        }

        impl Name {
            /// Those that are looked up by their length.
            pub(super) const ALL: &[Name] = &[$(Name::$variant),*];

            /// Lower-case spelling; empty for `Other`, `Control` and `Lookalike`, which have many.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Name::$variant => $name,)*
                    Name::XForwardedClientCert => CLIENT_CERT,
                    Name::Control | Name::Lookalike | Name::Other => "",
                }
            }

            /// Which name this is, in any case.
            #[must_use]
            pub fn of(name: &[u8]) -> Name {
                /// Those of each length.
                const OF_LENGTH: [[Known; OF_LENGTH_MAX]; LENGTH_MAX + 1] = by_length(Name::ALL);
                let Some(same_length) = OF_LENGTH.get(name.len()) else {
                    return apart(name);
                };
                let folded = folded(name);
                let known = same_length.iter().find(|known| known.folded == folded);
                known.map_or_else(|| apart(name), |known| known.name)
            }

            const fn bit(self) -> u32 {
                1 << self as u32
            }
        }
    };
}

known! {
    Host = "host",
    Accept = "accept",
    Connection = "connection",
    UserAgent = "user-agent",
    ContentLength = "content-length",
    ContentType = "content-type",
    TransferEncoding = "transfer-encoding",
    Date = "date",
    Te = "te",
    Via = "via",
    Cookie = "cookie",
    Expect = "expect",
    Upgrade = "upgrade",
    Trailer = "trailer",
    Forwarded = "forwarded",
    KeepAlive = "keep-alive",
    Authorization = "authorization",
    ProxyConnection = "proxy-connection",
    XForwardedFor = "x-forwarded-for",
    XForwardedProto = "x-forwarded-proto",
    XForwardedHost = "x-forwarded-host",
    XRequestId = "x-request-id",
    TidegateReason = "tidegate-reason",
}

const CLIENT_CERT: &str = "x-forwarded-client-cert";

/// What an ingress, the activator and the queue-proxy of Knative tell each other. A client that could
/// say it too would pass for one of them: change the host an application sees, or hide its load from
/// the autoscaler. (`Knative-Serving-Tag` is for users.)
const CONTROL: [&str; 9] = [
    "k-kubelet-probe",
    "k-network-hash",
    "k-network-probe",
    "k-original-host",
    "k-passthrough-lb",
    "k-proxy-request",
    "knative-serving-default-route",
    "knative-serving-namespace",
    "knative-serving-revision",
];

/// Names that would make the table larger for all others: told by their first letter from nearly
/// everything.
fn apart(name: &[u8]) -> Name {
    let is = |text: &str| reads_as(name, text);
    let known = match name.first() {
        Some(b'k' | b'K') if CONTROL.iter().any(|text| is(text)) => Name::Control,
        Some(b'x' | b'X') if is(CLIENT_CERT) => Name::XForwardedClientCert,
        Some(b'x' | b'X') if SPOKEN_FOR.iter().any(|name| is(name.text())) => Name::Lookalike,
        _ => return Name::Other,
    };
    match name.contains(&b'_') {
        true => Name::Lookalike,
        false => known,
    }
}

/// What we say of the client, of names with a hyphen.
const SPOKEN_FOR: [Name; 4] = [
    Name::XForwardedFor,
    Name::XForwardedProto,
    Name::XForwardedHost,
    Name::XRequestId,
];

/// Whether a name is this text to whoever takes `_` for `-`.
fn reads_as(name: &[u8], text: &str) -> bool {
    let same = |(one, other): (&u8, u8)| {
        one.eq_ignore_ascii_case(&other) || (*one == b'_' && other == b'-')
    };
    name.len() == text.len() && name.iter().zip(text.bytes()).all(same)
}

/// Length of the longest name in the table.
const LENGTH_MAX: usize = 17;

/// Most names of the same length.
const OF_LENGTH_MAX: usize = 3;

/// A name and how it is recognised.
#[derive(Clone, Copy)]
struct Known {
    name: Name,
    folded: [u64; 3],
}

/// The text in lower case, in three words: compared at once and not letter by letter. Only a CR
/// would be taken for something else, a hyphen, and no name or value holds one.
const fn folded(text: &[u8]) -> [u64; 3] {
    let mut bytes = [0; 24];
    let (front, _) = bytes.split_at_mut(text.len());
    front.copy_from_slice(text);
    let (words, _) = bytes.as_chunks::<8>();
    const LOWER: u64 = 0x2020_2020_2020_2020;
    [
        u64::from_ne_bytes(words[0]) | LOWER,
        u64::from_ne_bytes(words[1]) | LOWER,
        u64::from_ne_bytes(words[2]) | LOWER,
    ]
}

/// The names by their length; `Other` where there are no more.
const fn by_length(names: &[Name]) -> [[Known; OF_LENGTH_MAX]; LENGTH_MAX + 1] {
    let none = Known {
        name: Name::Other,
        folded: [0; 3],
    };
    let mut table = [[none; OF_LENGTH_MAX]; LENGTH_MAX + 1];
    let mut next = 0;
    while next < names.len() {
        let name = names[next];
        let text = name.text().as_bytes();
        let row = &mut table[text.len()];
        let mut at = 0;
        while !matches!(row[at].name, Name::Other) {
            at += 1;
        }
        row[at] = Known {
            name,
            folded: folded(text),
        };
        next += 1;
    }
    table
}

/// One field: where its line, name and value stand.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub id: Name,
    /// Left out when the head is passed on.
    pub dropped: bool,
    /// It was left out when the head was [settled](Head::settle).
    pub settled: bool,
    pub name: Span,
    /// Without surrounding white space.
    pub value: Span,
    /// The whole line with its CRLF.
    pub line: Span,
}

/// The fields of a head in their order.
#[derive(Debug, Default)]
pub struct Head {
    pub bytes: Vec<u8>,
    fields: Vec<Field>,
    /// A bit for each known name that some field has: most are asked for and not there.
    names: u32,
}

impl Head {
    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
        self.names = 0;
    }

    /// Bytes of memory it keeps.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity() + self.fields.capacity() * size_of::<Field>()
    }

    /// Gives back the memory it has for more than what is there.
    pub fn fit(&mut self) {
        self.bytes.shrink_to_fit();
        self.fields.shrink_to_fit();
    }

    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Writes a line behind what is there and indexes it as a field. The value must hold no CR or
    /// LF, and no white space around it.
    pub fn append(&mut self, name: &[u8], value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(b": ");
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(b"\r\n");
        let name_end = start + name.len();
        let value_start = name_end + b": ".len();
        self.push(Field {
            id: Name::of(name),
            dropped: false,
            settled: false,
            name: Span::new(start, name_end),
            value: Span::new(value_start, value_start + value.len()),
            line: Span::new(start, self.bytes.len()),
        });
    }

    /// Adds a field behind the others.
    pub fn push(&mut self, field: Field) {
        self.names |= field.id.bit();
        self.fields.push(field);
    }

    /// Says where the last field's line ends.
    pub fn end_line(&mut self, end: u32) {
        if let Some(last) = self.fields.last_mut() {
            last.line.end = end;
        }
    }

    /// Whether there is a field of this name.
    #[must_use]
    pub fn has(&self, id: Name) -> bool {
        self.names & id.bit() != 0
    }

    #[must_use]
    pub fn value(&self, field: &Field) -> &[u8] {
        field.value.of(&self.bytes)
    }

    /// Values of every field of this name.
    pub fn all(&self, id: Name) -> impl Iterator<Item = &[u8]> {
        let fields: &[Field] = if self.has(id) { &self.fields } else { &[] };
        fields
            .iter()
            .filter(move |field| field.id == id)
            .map(|field| self.value(field))
    }

    /// Value of the first field of this name.
    #[must_use]
    pub fn first(&self, id: Name) -> Option<&[u8]> {
        self.all(id).next()
    }

    /// Comma-separated members of every field of this name, trimmed, empty ones left out
    /// (RFC 9110 §5.6.1).
    pub fn list(&self, id: Name) -> impl Iterator<Item = &[u8]> {
        self.all(id).flat_map(members)
    }

    /// Takes what is left out by now for good: [`restore`](Head::restore) comes back to here.
    pub fn settle(&mut self) {
        for field in &mut self.fields {
            field.settled = field.dropped;
        }
    }

    /// Passes on again whatever was left out since it was settled.
    pub fn restore(&mut self) {
        for field in &mut self.fields {
            field.dropped = field.settled;
        }
    }

    /// Leaves out every field of this name when the head is passed on.
    pub fn drop_all(&mut self, id: Name) {
        if !self.has(id) {
            return;
        }
        for field in &mut self.fields {
            field.dropped |= field.id == id;
        }
    }

    /// Leaves out those with this id whose name is not to be kept.
    pub fn drop_all_but(&mut self, id: Name, keeps: impl Fn(&[u8]) -> bool) {
        let Head { bytes, fields, .. } = self;
        for field in fields.iter_mut().filter(|field| field.id == id) {
            field.dropped |= !keeps(field.name.of(bytes));
        }
    }

    /// Whether a field with this name, known or not, in any case, is passed on.
    #[must_use]
    pub fn passes(&self, name: &[u8]) -> bool {
        let named = |field: &Field| field.name.of(&self.bytes).eq_ignore_ascii_case(name);
        self.fields
            .iter()
            .any(|field| !field.dropped && named(field))
    }

    /// Leaves out every field with this name, known or not, in any case.
    pub fn drop_named(&mut self, name: &[u8]) {
        let Head { bytes, fields, .. } = self;
        for field in fields {
            field.dropped |= field.name.of(bytes).eq_ignore_ascii_case(name);
        }
    }

    /// Makes every field whose name holds this byte as if it had not come, and says whether there
    /// was one: it is not passed on, and nobody who asks for a field finds it.
    pub fn hide_with(&mut self, byte: u8) -> bool {
        let Head { bytes, fields, .. } = self;
        let mut any = false;
        for field in fields {
            if memchr::memchr(byte, field.name.of(bytes)).is_some() {
                any = true;
                field.dropped = true;
                field.id = Name::Other;
                field.name.end = field.name.start;
            }
        }
        any
    }

    /// Like [`drop_named`](Head::drop_named), for a name that stands in this head itself.
    pub fn drop_named_at(&mut self, name: Span) {
        let Head { bytes, fields, .. } = self;
        let name = name.of(bytes);
        for field in fields {
            field.dropped |= field.name.of(bytes).eq_ignore_ascii_case(name);
        }
    }
}

/// Members of a comma-separated list, trimmed, empty ones left out.
pub fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

impl config::route::Fields for Head {
    fn first(&self, name: &str) -> Option<&[u8]> {
        let named = |field: &&Field| {
            field
                .name
                .of(&self.bytes)
                .eq_ignore_ascii_case(name.as_bytes())
        };
        self.fields
            .iter()
            .find(named)
            .map(|field| self.value(field))
    }

    fn any_equals(&self, name: &str, value: &[u8]) -> bool {
        self.fields.iter().any(|field| {
            field
                .name
                .of(&self.bytes)
                .eq_ignore_ascii_case(name.as_bytes())
                && self.value(field) == value
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_name_is_what_a_comparison_of_letters_says(
            of in 0..Name::ALL.len(),
            at in any::<usize>(),
            flipped in any::<u8>(),
        ) {
            let mut text = Name::ALL[of].text().as_bytes().to_vec();
            let at = at % text.len();
            text[at] ^= flipped;
            // No parser lets it into a name or a value.
            prop_assume!(!text.contains(&b'\r'));
            let mut all = Name::ALL.iter();
            let same = all.find(|name| text.eq_ignore_ascii_case(name.text().as_bytes()));
            let wanted = same.copied().unwrap_or_else(|| apart(&text));
            prop_assert_eq!(Name::of(&text), wanted);
        }
    }

    #[test]
    fn a_name_is_known_in_any_case_and_nothing_else_is_taken_for_it() {
        let mut known = 0;
        for row in by_length(Name::ALL) {
            for name in row.map(|known| known.name) {
                if name == Name::Other {
                    continue;
                }
                known += 1;
                let mut text = name.text().as_bytes().to_vec();
                assert_eq!(Name::of(&text), name);
                text.make_ascii_uppercase();
                assert_eq!(Name::of(&text), name);
                for at in 0..text.len() {
                    let mut other = text.clone();
                    other[at] = b'#';
                    assert_eq!(Name::of(&other), Name::Other, "{name:?}");
                }
                assert_eq!(Name::of(&text[1..]), Name::Other);
            }
        }
        assert_eq!(known, Name::ALL.len());
        for text in CONTROL {
            assert_eq!(Name::of(text.as_bytes()), Name::Control);
            assert_eq!(
                Name::of(text.to_ascii_uppercase().as_bytes()),
                Name::Control
            );
            assert_eq!(Name::of(&text.as_bytes()[1..]), Name::Other);
        }
        assert_eq!(Name::of(b"Knative-Serving-Tag"), Name::Other);
        for text in [
            &b"x_forwarded_for"[..],
            b"X-Forwarded_Proto",
            b"x_forwarded-host",
            b"X_REQUEST_ID",
            b"X_Forwarded_Client_Cert",
            b"x-forwarded-client_cert",
            b"k_network_hash",
            b"Knative_Serving_Revision",
        ] {
            assert_eq!(Name::of(text), Name::Lookalike);
        }
        assert_eq!(Name::of(b"x_other"), Name::Other);
        let cert = Name::XForwardedClientCert;
        assert_eq!(Name::of(b"X-Forwarded-Client-Cert"), cert);
        assert_eq!(Name::of(cert.text().as_bytes()), cert);
        assert_eq!(Name::of(b""), Name::Other);
        assert_eq!(Name::of(&[b'a'; 100]), Name::Other);
    }
}
