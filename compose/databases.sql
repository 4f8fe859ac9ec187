-- Run once by the postgres image, when its volume is empty. The locale is the server's, which initdb was told.
CREATE DATABASE artstore_admin;
CREATE DATABASE artstore_query;
