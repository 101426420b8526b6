//! Why a request stream was refused: one variant a rule, so that each can be counted.

use http::StatusCode;

/// Declares the variants with their status and reason in one table, so that none of the three can drift.
macro_rules! rejections {
    ($($(#[$doc:meta])+ $variant:ident => $status:ident, $reason:literal;)+) => {
        /// A rule of the request stream that a client broke. The client is at fault, always.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Rejection {
            $($(#[$doc])+ $variant,)+
        }

        impl Rejection {
            /// Every rejection, for metrics that exist before they are first counted.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// What the client is answered with.
            pub fn status(self) -> StatusCode {
                match self {
                    $(Self::$variant => StatusCode::$status,)+
                }
            }

            /// A stable word for logs and metric labels, unique for each rule.
            pub fn reason(self) -> &'static str {
                match self {
                    $(Self::$variant => $reason,)+
                }
            }
        }
    };
}

rejections! {
    /// A line that ends in LF alone. RFC 9112 section 2.2 permits taking it for a line end; others do not take it.
    BareLf => BAD_REQUEST, "bare_lf";
    /// A CR without LF (RFC 9112 section 2.2).
    BareCr => BAD_REQUEST, "bare_cr";
    /// More than one empty line in front of a request line (RFC 9112 section 2.2 asks for tolerance of one).
    EmptyLines => BAD_REQUEST, "empty_lines";
    /// Not `method SP target SP version`, with exactly one space each (RFC 9112 section 3).
    RequestLine => BAD_REQUEST, "request_line";
    /// The method is not a token (RFC 9110 section 9.1).
    Method => BAD_REQUEST, "method";
    /// A request target in none of the forms of RFC 9112 section 3.2, or in one that the method does not have.
    Target => BAD_REQUEST, "target";
    /// An absolute-form target whose authority is no `host[:port]`.
    Authority => BAD_REQUEST, "authority";
    /// An authority with user information (RFC 9110 section 4.2.4): some readers take what is before the `@` for the host.
    UserInfo => BAD_REQUEST, "user_info";
    /// Not an HTTP version at all.
    Version => BAD_REQUEST, "version";
    /// A field line that begins with a space or a tab (obs-fold, RFC 9112 section 5.2).
    FieldFolded => BAD_REQUEST, "field_folded";
    /// A line without a colon among the fields.
    FieldColon => BAD_REQUEST, "field_colon";
    /// Nothing in front of the colon.
    FieldNameEmpty => BAD_REQUEST, "field_name_empty";
    /// A space or tab in a field name or between it and the colon (RFC 9112 section 5.1).
    FieldNameSpace => BAD_REQUEST, "field_name_space";
    /// Another byte that is not part of a token in a field name.
    FieldName => BAD_REQUEST, "field_name";
    /// A control byte other than a tab in a field value (RFC 9110 section 5.5).
    FieldValue => BAD_REQUEST, "field_value";
    /// An HTTP/1.1 request without Host (RFC 9112 section 3.2).
    HostMissing => BAD_REQUEST, "host_missing";
    /// More than one Host field.
    HostRepeated => BAD_REQUEST, "host_repeated";
    /// Host is no `host[:port]`.
    HostInvalid => BAD_REQUEST, "host_invalid";
    /// Host is not the authority of an absolute-form target (RFC 9112 section 3.2 requires them to be identical).
    HostMismatch => BAD_REQUEST, "host_mismatch";
    /// Content-Length is not a plain decimal number.
    ContentLength => BAD_REQUEST, "content_length";
    /// More than one Content-Length, as fields or as a list, equal or not (RFC 9112 section 6.3 permits refusing both).
    ContentLengthRepeated => BAD_REQUEST, "content_length_repeated";
    /// A Content-Length of 2^63 or more, which not every reader can hold.
    ContentLengthOverflow => BAD_REQUEST, "content_length_overflow";
    /// Transfer-Encoding is no list of codings, or has `chunked` twice or not last (RFC 9112 section 6.3).
    TransferEncoding => BAD_REQUEST, "transfer_encoding";
    /// More than one Transfer-Encoding field.
    TransferEncodingRepeated => BAD_REQUEST, "transfer_encoding_repeated";
    /// Transfer-Encoding in an HTTP/1.0 message, whose framing is faulty by RFC 9112 section 6.1.
    TransferEncodingOnHttp10 => BAD_REQUEST, "transfer_encoding_on_http10";
    /// Both Transfer-Encoding and Content-Length: the classic of request smuggling (RFC 9112 section 6.1).
    TwoFramings => BAD_REQUEST, "two_framings";
    /// A chunk size that is not 1 to 16 hexadecimal digits directly followed by `;` or the line end.
    ChunkSize => BAD_REQUEST, "chunk_size";
    /// A chunk size of 2^63 or more, or of more than 16 digits (RFC 9112 section 7.1).
    ChunkSizeOverflow => BAD_REQUEST, "chunk_size_overflow";
    /// A chunk extension with a byte other than printable ASCII, space and tab.
    ChunkExtension => BAD_REQUEST, "chunk_extension";
    /// A chunk size line of more than 256 bytes.
    ChunkLineTooLong => BAD_REQUEST, "chunk_line_too_long";
    /// More than 4 KiB of chunk extensions in one body.
    ChunkExtensionsTooLarge => BAD_REQUEST, "chunk_extensions_too_large";
    /// The data of a chunk are not followed by CRLF.
    ChunkEnd => BAD_REQUEST, "chunk_end";
    /// A trailer field that decides about framing or routing (RFC 9110 section 6.5.1).
    TrailerForbidden => BAD_REQUEST, "trailer_forbidden";
    /// A request target, or a request line, over the limit (RFC 9112 section 3).
    UriTooLong => URI_TOO_LONG, "uri_too_long";
    /// A head over the limit (RFC 6585 section 5).
    HeadTooLarge => REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large";
    /// More fields in a head or a trailer section than the limit.
    TooManyFields => REQUEST_HEADER_FIELDS_TOO_LARGE, "too_many_fields";
    /// A trailer section of more than 8 KiB.
    TrailersTooLarge => REQUEST_HEADER_FIELDS_TOO_LARGE, "trailers_too_large";
    /// A transfer coding other than `chunked` (RFC 9112 section 6.1).
    TransferCodingUnknown => NOT_IMPLEMENTED, "transfer_coding_unknown";
    /// CONNECT where the listener does not allow it.
    Connect => NOT_IMPLEMENTED, "connect";
    /// CONNECT with a body: what follows its head is the tunnel's (RFC 9110 section 9.3.6).
    ConnectBody => BAD_REQUEST, "connect_body";
    /// An HTTP version other than 1.0 and 1.1, the preface of HTTP/2 among them.
    VersionNotSupported => HTTP_VERSION_NOT_SUPPORTED, "version_not_supported";
}
