//! Inputs of [`crate::Flow::map`]: one column, or several side by side.

use std::marker::PhantomData;

use remuda_core::error::{Error, ErrorKind, Result};

use crate::call::Call;

/// An input that is the same in every call of a map.
///
/// ```
/// let factor = remuda::unmapped(7);
/// # drop(factor);
/// ```
pub fn unmapped<T>(value: T) -> Unmapped<T> {
    Unmapped(value)
}

/// See [`unmapped`].
#[derive(Debug, Clone)]
pub struct Unmapped<T>(T);

/// One input of a map: anything that can be iterated over, or [`unmapped`].
pub trait Column {
    /// What each call is given.
    type Item;

    /// The elements, one for each call.
    fn cells(self) -> Cells<Self::Item>;
}

/// The elements of a [`Column`].
#[derive(Debug)]
pub enum Cells<T> {
    /// One for each call.
    Each(std::vec::IntoIter<T>),
    /// The same for every call, with the means to copy it.
    Same(T, fn(&T) -> T),
}

impl<T> Cells<T> {
    fn len(&self) -> Option<usize> {
        match self {
            Self::Each(items) => Some(items.len()),
            Self::Same(..) => None,
        }
    }

    fn next(&mut self) -> Option<T> {
        match self {
            Self::Each(items) => items.next(),
            Self::Same(item, copy) => Some(copy(item)),
        }
    }
}

impl<I: IntoIterator> Column for I {
    type Item = I::Item;

    fn cells(self) -> Cells<I::Item> {
        Cells::Each(self.into_iter().collect::<Vec<_>>().into_iter())
    }
}

impl<T: Clone> Column for Unmapped<T> {
    type Item = T;

    fn cells(self) -> Cells<T> {
        Cells::Same(self.0, T::clone)
    }
}

/// What [`crate::Flow::map`] maps over: see there. `M` tells one column from several and is always inferred.
pub trait MapInputs<F, T, M> {
    /// A call for each row.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`] when lengths differ or nothing is mapped.
    fn calls(self, task: F) -> Result<Vec<Call<T>>>;
}

/// Marker: one column.
#[derive(Debug)]
pub struct One<A>(PhantomData<fn(A)>);

impl<F, T, I, A> MapInputs<F, T, One<A>> for I
where
    I: IntoIterator<Item = A>,
    F: Fn(A) -> Call<T>,
{
    fn calls(self, task: F) -> Result<Vec<Call<T>>> {
        Ok(self.into_iter().map(task).collect())
    }
}

/// How many rows, given each column's length (`None`: unmapped).
fn rows(lengths: &[Option<usize>]) -> Result<usize> {
    let mut mapped = lengths.iter().flatten();
    let Some(first) = mapped.next() else {
        return Err(
            Error::new(ErrorKind::ConfigInvalid, "nothing to map over: every input is unmapped").with_hint("use `submit` for one call")
        );
    };
    if mapped.all(|length| length == first) {
        return Ok(*first);
    }
    let shown: Vec<_> = lengths.iter().map(|l| l.map_or_else(|| "unmapped".to_owned(), |l| l.to_string())).collect();
    Err(Error::new(ErrorKind::ConfigInvalid, format!("the inputs of a map differ in length: {}", shown.join(", ")))
        .with_hint("wrap what is the same in every call in `unmapped(..)`"))
}

macro_rules! columns {
    ($marker:ident: $($column:ident $item:ident $cells:ident),+) => {
        /// Marker: several columns.
        #[derive(Debug)]
        pub struct $marker<$($item),+>(PhantomData<fn($($item),+)>);

        impl<Fun, Out, $($column, $item),+> MapInputs<Fun, Out, $marker<$($item),+>> for ($($column,)+)
        where
            $($column: Column<Item = $item>,)+
            Fun: Fn($($item),+) -> Call<Out>,
        {
            fn calls(self, task: Fun) -> Result<Vec<Call<Out>>> {
                let ($($cells,)+) = self;
                $(let mut $cells = $cells.cells();)+
                let rows = rows(&[$($cells.len()),+])?;
                Ok((0..rows).map_while(|_| Some(task($($cells.next()?),+))).collect())
            }
        }
    };
}
columns!(Two: I A a, J B b);
columns!(Three: I A a, J B b, K C c);
columns!(Four: I A a, J B b, K C c, L D d);
