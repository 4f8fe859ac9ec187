-- A Storage Element's own database as it was in January 2026: the fields of the events of that time, little checked.
-- Eight rows can be taken over, eight cannot.

CREATE TABLE file_metadata (
    file_id varchar(40) PRIMARY KEY,
    storage_element_id text,
    original_filename text,
    storage_filename text,
    file_size bigint,
    mime_type text,
    created_at timestamp,
    created_by_username text,
    created_by_fullname text,
    description text,
    version text,
    tags jsonb,
    storage_path text,
    checksum text,
    retention_expires_at timestamptz
);

INSERT INTO file_metadata VALUES
('0a6b2f5e-3c1d-4e8f-9a70-000000000001', 'se-01', 'Договор поставки №17.pdf', 'dogovor_ivanov_20260113_0a6b2f5e.pdf', 1048576,
 'application/pdf', '2026-01-13 10:00:00', 'ivanov', 'Иван Иванов', 'Договор с ООО «Ромашка»', '1.0', '["срочно", "договор"]',
 'files/active', 'sha256:' || repeat('a1b2c3d4', 8), '2027-01-13T13:00:00+03:00'),
('0a6b2f5e-3c1d-4e8f-9a70-000000000002', 'se-01', 'Годовой отчёт 2025.docx', 'otchet_petrova_20260114_0a6b2f5e.docx', 20480,
 'application/vnd.openxmlformats-officedocument.wordprocessingml.document', '2026-01-14 08:30:15.250', 'petrova',
 'Анна Петрова', NULL, NULL, '[]', '/files/active/', upper(repeat('0f', 32)), NULL),
('0a6b2f5e-3c1d-4e8f-9a70-000000000003', 'se-01', 'contract_final.v2.pdf', 'contract_smith_20260115.pdf', 52311,
 'application/pdf', '2026-01-15 17:45:00', 'smith', 'John Smith', 'Final draft', '2', '["contract", "contract", " final "]',
 'files/active', repeat('ab', 32), NULL),
('0a6b2f5e-3c1d-4e8f-9a70-000000000004', 'se-02', 'photo 001.JPG', 'photo_smith_20260116.jpg', 0,
 'Image/JPEG; q=1', '2026-01-16 00:00:00', 'smith', '', '', '', NULL, 'files/archive/2025', repeat('cd', 32), NULL),
-- No media type and no uploader, as some early imports left them.
('0a6b2f5e-3c1d-4e8f-9a70-000000000005', 'se-01', 'смета.xlsx', 'smeta_20260117.xlsx', 777,
 NULL, '2026-01-17 12:00:00', NULL, NULL, 'Смета на ремонт', NULL, '["смета", null, ""]', 'files/active', repeat('12', 32), NULL),
('0A6B2F5E-3C1D-4E8F-9A70-000000000006', 'se-01', 'README', 'readme_20260118', 12,
 'text/plain', '2026-01-18 12:00:00', 'smith', 'John Smith', E'two\nlines', NULL, '["notes"]', 'files/active', repeat('34', 32), NULL),
('0a6b2f5e-3c1d-4e8f-9a70-000000000007', 'se-02', 'Презентация для совета.pptx', 'prez_20260119.pptx', 9999999,
 'application/vnd.ms-powerpoint', '2026-01-19 09:00:00', 'ivanov', 'Иван Иванов', NULL, '3.1', '["совет"]', 'files/active',
 'SHA256:' || repeat('56', 32), NULL),
('0a6b2f5e-3c1d-4e8f-9a70-000000000008', 'se-02', 'backup.tar.gz', 'backup_20260120.tar.gz', 5368709120,
 'application/gzip', '2026-01-20 03:00:00', 'cron', NULL, NULL, NULL, '["backup"]', 'files/active', repeat('78', 32), NULL),
-- From here on: what has to be refused, and why.
('not-a-uuid', 'se-01', 'a.txt', 'a.txt', 1, 'text/plain', '2026-01-20 00:00:00', 'smith', NULL, NULL, NULL, NULL,
 'files/active', repeat('9a', 32), NULL),
('0a6b2f5e-3c1d-4e8f-9a70-0000000000b2', 'se-01', 'short-checksum.txt', 'b.txt', 1, 'text/plain', '2026-01-20 00:00:00',
 'smith', NULL, NULL, NULL, NULL, 'files/active', 'sha256:d41d8cd98f00b204', NULL),
('0a6b2f5e-3c1d-4e8f-9a70-0000000000b3', 'se-01', 'negative.txt', 'c.txt', -1, 'text/plain', '2026-01-20 00:00:00', 'smith',
 NULL, NULL, NULL, NULL, 'files/active', repeat('9a', 32), NULL),
('0a6b2f5e-3c1d-4e8f-9a70-0000000000b4', 'se-01', E'line\nbreak.txt', 'd.txt', 1, 'text/plain', '2026-01-20 00:00:00', 'smith',
 NULL, NULL, NULL, NULL, 'files/active', repeat('9a', 32), NULL),
('0a6b2f5e-3c1d-4e8f-9a70-0000000000b5', 'se-01', repeat('длинное имя ', 30), 'e.txt', 1, 'text/plain', '2026-01-20 00:00:00',
 'smith', NULL, NULL, NULL, NULL, 'files/active', repeat('9a', 32), NULL),
('0a6b2f5e-3c1d-4e8f-9a70-0000000000b6', 'se-01', NULL, 'f.txt', 1, 'text/plain', '2026-01-20 00:00:00', 'smith', NULL, NULL,
 NULL, NULL, 'files/active', repeat('9a', 32), NULL),
-- No driver can hold this moment.
('0a6b2f5e-3c1d-4e8f-9a70-0000000000b7', 'se-01', 'far-future.txt', 'g.txt', 1, 'text/plain', '20000-01-01 00:00:00', 'smith',
 NULL, NULL, NULL, NULL, 'files/active', repeat('9a', 32), NULL),
('0a6b2f5e-3c1d-4e8f-9a70-0000000000b8', 'se-01', 'outside.txt', 'passwd', 1, 'text/plain', '2026-01-20 00:00:00', 'smith', NULL,
 NULL, NULL, NULL, '../../etc', repeat('9a', 32), NULL);

-- The same kind of table in other words; tests/examples/documents.toml says which.
CREATE TABLE documents (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    guid uuid,
    title text,
    object text,
    bytes numeric,
    added timestamptz,
    author text,
    labels text,
    sha256 text NOT NULL DEFAULT repeat('bc', 32)
);

INSERT INTO documents (guid, title, object, bytes, added, author, labels) VALUES
('0a6b2f5e-3c1d-4e8f-9a70-0000000000d1', 'Акт приёмки.pdf', 'act.pdf', 100, '2026-01-13T13:00:00+03:00', 'ivanov', 'акт, приёмка,'),
('0a6b2f5e-3c1d-4e8f-9a70-0000000000d2', 'Invoice.pdf', 'invoice.pdf', 200.5, '2026-01-13T13:00:00+03:00', 'smith', NULL),
('0a6b2f5e-3c1d-4e8f-9a70-0000000000d3', 'Invoice 2.pdf', 'invoice2.pdf', 300, 'infinity', 'smith', NULL),
-- The same file twice.
('0a6b2f5e-3c1d-4e8f-9a70-0000000000d1', 'Акт приёмки.pdf', 'act.pdf', 100, '2026-01-13T13:00:00+03:00', 'ivanov', NULL);
