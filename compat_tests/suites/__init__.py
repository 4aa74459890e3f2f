"""The suites of compat_tests, one module each: where the tests are, and how a loop is put in."""
