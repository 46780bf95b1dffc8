//! The status for people.

use enclaver_outer::Snapshot;

const HEAD: [&str; 5] = ["GUEST", "PEER", "STATE", "SINCE", "LINK"];

/// A table with a line for each guest.
pub(super) fn render(snapshot: &Snapshot) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    for guest in &snapshot.guests {
        rows.push([
            guest.name.clone(),
            guest.peer.clone(),
            guest.state.to_string(),
            guest.since.clone(),
            if guest.connected { "up" } else { "-" }.to_owned(),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; 5] = std::array::from_fn(|column| width(column).unwrap_or(0));
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let json = r#"{"guests":[
            {"name":"payments","peer":"cid 16","run":"00","state":"exited","code":3,
             "since":"2026-11-21T01:02:03.000Z","connected":false,"feeds":{}},
            {"name":"b","peer":"cid 17","run":"01","state":"fatal","reason":"no\u001b[2J",
             "since":"2026-11-21T01:02:03.000Z","connected":true,
             "feeds":{"log":{"records":7,"ended":false}}}]}"#;
        let snapshot: Snapshot = serde_json::from_str(json).unwrap();
        assert_eq!(
            render(&snapshot),
            "GUEST     PEER    STATE               SINCE                     LINK\n\
             payments  cid 16  exited(3)           2026-11-21T01:02:03.000Z  -\n\
             b         cid 17  fatal(no\\u{1b}[2J)  2026-11-21T01:02:03.000Z  up\n"
        );
    }
}
