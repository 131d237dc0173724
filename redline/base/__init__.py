"""The leaf package: environment, errors, data types, shapes and logging. Imports nothing of Redline."""
