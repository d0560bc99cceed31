//! Files that stand for many scenarios: `extends` another file, and a `[matrix]` of values for some of its keys.
//!
//! Keys of a matrix are written as in errors, `"torrent.1.piece"`, each with a list of values; every combination is a
//! cell. `cells` says how many there are, so that a file which runs fewer than somebody meant is refused.

use toml::{Table, Value};

use super::error::Wrong;

/// Lays a file over the one that it extends: tables are merged, everything else is replaced.
pub(super) fn extend(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => extend(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Every cell of a file's matrix, in the order of its keys; the file itself when it has none.
pub(super) fn cells(mut file: Table) -> Result<Vec<Table>, Wrong> {
    let Some(matrix) = file.remove("matrix") else { return Ok(vec![file]) };
    let Value::Table(mut matrix) = matrix else { return Err(Wrong::at("matrix", "", "wants a table")) };
    let stated = matrix.remove("cells").and_then(|cells| cells.as_integer());
    let mut cells = vec![file];
    for (key, values) in &matrix {
        let Some(values) = values.as_array().filter(|values| !values.is_empty()) else {
            return Err(Wrong::at("matrix", key, "wants a list of values"));
        };
        if cells.len() * values.len() > CELLS_MAX {
            return Err(Wrong::at("matrix", "", format!("wants at most {CELLS_MAX} cells")));
        }
        let mut more = Vec::new();
        for cell in cells {
            for value in values {
                let mut cell = cell.clone();
                let slot = slot(&mut cell, key).ok_or_else(|| Wrong::at("matrix", key, "no such place"))?;
                slot.0.insert(slot.1, value.clone());
                more.push(cell);
            }
        }
        cells = more;
    }
    if stated != Some(cells.len() as i64) {
        return Err(Wrong::at(
            "matrix",
            "cells",
            format!("wants {}, which is how many there are", cells.len()),
        ));
    }
    Ok(cells)
}

/// The table in which a dotted key stands, and its name there. Tables on the way that are missing are made.
fn slot<'a>(cell: &'a mut Table, key: &str) -> Option<(&'a mut Table, String)> {
    let mut steps: Vec<&str> = key.split('.').collect();
    let last = steps.pop()?.to_owned();
    let mut steps = steps.into_iter();
    let mut table = cell;
    while let Some(step) = steps.next() {
        table = match table.entry(step).or_insert_with(|| Value::Table(Table::new())) {
            Value::Table(inner) => inner,
            Value::Array(list) => {
                let number: usize = steps.next()?.parse().ok()?;
                list.get_mut(number.checked_sub(1)?)?.as_table_mut()?
            }
            _ => return None,
        };
    }
    Some((table, last))
}

/// More would be a mistake in the file.
const CELLS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Vec<Table>, String> {
        cells(text.parse().expect("TOML"))
            .map_err(|wrong| format!("{}: {}", wrong.key.join("."), wrong.message))
    }

    #[test]
    fn every_combination_is_a_cell() {
        let text = "[[torrent]]\npiece = 1\n[matrix]\n\"torrent.1.piece\" = [1, 2, 3]\n\"net.loss\" = [7, 8]\ncells = 6\n";
        let cells = all(text).expect("a matrix");
        let seen: Vec<(i64, i64)> = cells
            .iter()
            .map(|cell| {
                let piece = cell["torrent"][0]["piece"].as_integer();
                (piece.expect("set"), cell["net"]["loss"].as_integer().expect("set"))
            })
            .collect();
        assert_eq!(seen.len(), 6);
        assert!(
            [(1, 7), (1, 8), (2, 7), (2, 8), (3, 7), (3, 8)].iter().all(|cell| seen.contains(cell)),
            "{seen:?}"
        );
        assert!(cells.iter().all(|cell| !cell.contains_key("matrix")));
    }

    #[test]
    fn a_matrix_that_counts_wrong_or_points_nowhere_is_refused() {
        for (matrix, want) in [
            ("a = [1, 2]\ncells = 3", "matrix.cells: wants 2"),
            ("a = [1, 2]", "matrix.cells: wants 2"),
            ("a = []\ncells = 0", "matrix.a: wants a list"),
            ("a = 1\ncells = 1", "matrix.a: wants a list"),
            ("\"t.3.x\" = [1]\ncells = 1", "matrix.t.3.x: no such place"),
        ] {
            let error = all(&format!("t = [{{ x = 1 }}]\n[matrix]\n{matrix}\n")).expect_err(matrix);
            assert!(error.starts_with(want), "{error}");
        }
    }

    #[test]
    fn a_file_is_laid_over_the_one_that_it_extends() {
        let mut base: Table = "[a]\nx = 1\ny = 2\n[[b]]\nz = 3\n".parse().expect("TOML");
        extend(&mut base, "b = [{ z = 4 }]\n[a]\ny = 5\n".parse().expect("TOML"));
        assert_eq!(base, "b = [{ z = 4 }]\n[a]\nx = 1\ny = 5\n".parse::<Table>().expect("TOML"));
    }
}
