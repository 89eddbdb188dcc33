-- pandoc's filter for pdf.py: what the pages have beyond plain text becomes calls of the functions in pdf.typ.

local function block(code) return pandoc.RawBlock("typst", code) end
local function inline(code) return pandoc.RawInline("typst", code) end
local function quoted(text) return '"' .. text:gsub("\\", "\\\\"):gsub('"', '\\"'):gsub("\n", " ") .. '"' end

-- #call[ ... ]: blocks as the argument of a function
local function boxed(call, blocks)
  local made = pandoc.List({ block("#" .. call .. "[") })
  made:extend(blocks)
  made:insert(block("]"))
  return made
end

local function bare(element)
  element.identifier, element.classes, element.attributes = "", {}, {}
  return element
end

function Span(span)
  local colour = span.classes:find_if(function(name) return name:match("^sd%-bg%-%a+$") end)
  if colour then
    local made = pandoc.List({ inline("#badge(" .. quoted(colour:sub(7)) .. ")[") })
    made:extend(span.content)
    made:insert(inline("]"))
    return made
  end
  if span.identifier ~= "" then span.content:insert(1, inline("#anchor <" .. span.identifier .. ">")) end
  return span.content
end

-- A first word that Typst would read as the mark of a list or a heading.
local function literal(text)
  local first = text.content[1]
  if first and first.t == "Str" and first.text:match("^[-+/=]+$") then
    text.content[1] = inline("\\" .. first.text)
  end
  return text
end

Plain = literal

function Para(text)
  local first = text.content[1]
  if first and first.t == "RawInline" and first.text:match("^#badge") then -- of a claim: stays with it
    return boxed("block(sticky: true)", { pandoc.Plain(text.content) })
  end
  return literal(text)
end

local function equation(div)
  local number, formula = "", nil
  div:walk({
    Str = function(text) number = text.text:match("^%(%d+%)$") or number end,
    Math = function(math) formula = math end,
  })
  return pandoc.Para({ inline("#equation(" .. quoted(number) .. ")["), formula, inline("]") })
end

function Div(div)
  if div.classes:includes("math") then return equation(div) end
  if div.attributes["lang"] == "ja" then return boxed("japanese", div.content) end
  for _, name in ipairs({ "admonition", "dropdown", "note" }) do
    if div.classes:includes(name) then return boxed(name, div.content) end
  end
  if div.classes:includes("sd-col") then return boxed("card", div.content) end
  return div.content
end

-- A heading is printed in the contents, too: its first anchor is its label, others come after it.
function Header(heading)
  local labels, rest = pandoc.List({}), pandoc.List({})
  for _, part in ipairs(heading.content) do
    local label = part.t == "RawInline" and part.text:match("^#anchor <(.*)>$")
    if label then labels:insert(label) else rest:insert(part) end
  end
  heading = bare(heading)
  heading.content, heading.identifier = rest, labels:remove(1) or ""
  local made = pandoc.List({ heading })
  for _, label in ipairs(labels) do made:insert(block("#anchor <" .. label .. ">")) end
  return made
end

function Link(link)
  link.title = ""
  return bare(link)
end

function Image(image)
  local alt = pandoc.utils.stringify(image.caption)
  return inline("#picture(" .. quoted(image.src) .. ", " .. quoted(alt) .. ")")
end

-- texmath writes a double bar of another size as a word.
function Math(math)
  math.text = math.text:gsub("\\[bB]igg?[lrm]?\\|", "\\parallel ")
  return math
end

Code = bare

function Table(rows)
  for i, column in ipairs(rows.colspecs) do rows.colspecs[i] = { column[1], nil } end
  return boxed("tabular(" .. #rows.colspecs .. ")", { bare(rows) })
end
