//! Asking a web server, without anything between.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};

const PATIENCE: Duration = Duration::from_secs(2);

/// No page of ours is longer.
const LONGEST: u64 = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// Names are compared without regard to case (RFC 9110, section 5.1).
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    fn parse(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.trim().to_owned()))
        };
        Some(Self { status, headers: lines.filter_map(header).collect(), body: body.to_owned() })
    }
}

/// `GET /` by HTTP/1.0, so that the answer ends with the connection.
pub(crate) fn get(address: SocketAddr) -> Result<Answer> {
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        write!(stream, "GET / HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
        let mut text = String::new();
        stream.take(LONGEST).read_to_string(&mut text)?;
        std::io::Result::Ok(text)
    };
    let text = ask().with_context(|| format!("http://{address}/ does not answer"))?;
    Answer::parse(&text).with_context(|| format!("what http://{address}/ answers is not HTTP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_headers_and_a_body() {
        let answer =
            Answer::parse("HTTP/1.1 200 OK\r\nServer: nginx\r\nX-Task: web-1\r\n\r\nhello\r\n\r\nyou")
                .unwrap();
        assert_eq!((answer.status, answer.header("x-task")), (200, Some("web-1")));
        assert_eq!(answer.body, "hello\r\n\r\nyou");
        assert_eq!(answer.header("absent"), None);
    }

    #[test]
    fn what_is_not_http_is_no_answer() {
        for bad in ["", "SSH-2.0-OpenSSH\r\n", "HTTP/1.1 fine\r\n\r\n"] {
            assert_eq!(Answer::parse(bad), None, "{bad:?}");
        }
    }
}
