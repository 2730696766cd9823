//! knest-tests.
