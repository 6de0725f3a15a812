-- The requests that wrk sends for one route, and the line of figures that it prints at the end.
-- Arguments: the route, a file of tokens (one per user, in the order of their ids), the first and the last user whose
-- requests are sent, the number of users, the movies of each user, and the first movie that DELETE requests may delete.

local route, users, movies, next_deletable
local tokens, prepared = {}, {}
local json = "application/json"

-- User u has the movies u, u + users, u + 2 * users, ...
local function random_movie(user)
    return user + users * math.random(0, movies - 1)
end

local function headers(user, content_type)
    return { ["Authorization"] = "Bearer " .. tokens[user], ["Content-Type"] = content_type }
end

local function text()
    return string.format("%06x film", math.random(0, 0xffffff))
end

local function body()
    return string.format('{"title": "%s", "genre": "Drama", "year": %d}', text(), math.random(1950, 2025))
end

local function movie_path(id)
    return "/api/v1/movies/" .. id .. "/"
end

-- The request of a user for each route.
local routes = {
    read = function(user) return wrk.format("GET", movie_path(random_movie(user)), headers(user)) end,
    list_first = function(user) return wrk.format("GET", "/api/v1/movies/", headers(user)) end,
    list_deep = function(user) return wrk.format("GET", "/api/v1/movies/?page=" .. math.random(3, math.max(3, movies / 10 - 3)), headers(user)) end,
    list_middle = function(user) return wrk.format("GET", "/api/v1/movies/?page=" .. math.floor(movies / 20), headers(user)) end,
    list_last = function(user) return wrk.format("GET", "/api/v1/movies/?page=last", headers(user)) end,
    search = function(user) return wrk.format("GET", string.format("/api/v1/movies/?title=%04x", math.random(0, 0xffff)), headers(user)) end,
    search_rare = function(user) return wrk.format("GET", string.format("/api/v1/movies/?title=%05x", math.random(0, 0xfffff)), headers(user)) end,
    create = function(user) return wrk.format("POST", "/api/v1/movies/", headers(user, json), body()) end,
    update = function(user) return wrk.format("PATCH", movie_path(random_movie(user)), headers(user, json), '{"title": "' .. text() .. '"}') end,
    response_100 = function() return wrk.format("GET", "/100", {}) end,
    response_2000 = function() return wrk.format("GET", "/2000", {}) end,
}

function init(arguments)
    local file, first, last
    route, file, first, last = arguments[1], arguments[2], tonumber(arguments[3]), tonumber(arguments[4])
    users, movies, next_deletable = tonumber(arguments[5]), tonumber(arguments[6]), tonumber(arguments[7])
    for line in io.lines(file) do
        tokens[#tokens + 1] = line
    end
    math.randomseed(os.time())
    if route ~= "delete" then
        for index = 1, 4096 do
            prepared[index] = routes[route](math.random(first, last))
        end
    end
end

function request()
    if route ~= "delete" then
        return prepared[math.random(#prepared)]
    end
    local id = next_deletable
    next_deletable = next_deletable + 1
    return wrk.format("DELETE", movie_path(id), headers(1 + (id - 1) % users))
end

function done(summary, latency)
    local failed = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
    print(string.format("figures %d %d %d %d %d", summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), failed))
end
